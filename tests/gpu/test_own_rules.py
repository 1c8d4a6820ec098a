"""Captured steps with your own rules, written as for NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.optim import Optimizer, Rule
from tests.gpu.test_captured_optimizers import CASES, STEPS, Problem
from tests.gpu.test_changed_optimizers import assert_alike
from tests.minigrad.optim.test_own_optimizer import Lion
from tinyalpaca.training.device_steps import NeedsHost
from tinyalpaca.training.gpu_steps import BY_THE_HOST


class in_place(Rule):
    state = ("m",)

    def step(xp, p, g, m, *, lr):
        m *= 0.9
        m += g
        p -= lr * m
        return p, m


class as_a_list(Rule):
    state = ("m",)

    def step(xp, p, g, m, *, lr):
        m = 0.9 * m + g
        return [p - lr * m, m]


class ranging(Rule):
    state = ("step", "m")

    def step(xp, p, g, m, *, lr, step):
        for _ in range(step):
            m = 0.9 * m + g / step
        return p - lr * m, m


class picking(Rule):
    state = ("step",)

    def step(xp, p, g, *, lr, step):
        return p - lr * [0.1, 0.2, 0.9][step % 3] * g


class looked_up(Rule):
    def step(xp, p, g, *, lr):
        return p - {0.01: 0.02}.get(lr, 0.03) * g


class dividing(Rule):
    state = ("step",)

    def step(xp, p, g, *, lr, step):
        return p - lr / int(step) * g


class silent(Rule):
    def step(xp, p, g, *, lr):
        p = p - lr * g


class OneRule(Optimizer):
    def __init__(self, params: Any, rule: Any) -> None:
        super().__init__(params, {"lr": 0.01, "weight_decay": 0.0})
        self.rule = rule

    def settings_of(self, group: Any, step: Any, new: bool) -> Any:
        settings = super().settings_of(group, step, new)
        del settings["weight_decay"]
        return settings


class Named(Lion):
    """A setting that is not a number differs at the first step."""

    rule = type(
        "named",
        (Rule,),
        {
            "state": ("m",),
            "step": lambda xp, p, g, m, *, lr, kind: (
                p - lr * (g if kind == "gradient" else m),
                0.9 * m + g,
            ),
        },
    )

    def settings_of(self, group: Any, step: Any, new: bool) -> Any:
        return {"lr": group["lr"], "kind": "gradient" if new else "mean"}


OWN: dict[str, Any] = {
    rule.__name__: lambda p, rule=rule: OneRule(p, rule)
    for rule in (in_place, as_a_list, ranging, picking, looked_up, dividing, silent)
} | {"named": Named}


@pytest.fixture(autouse=True)
def cases(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, make in OWN.items():
        monkeypatch.setitem(CASES, name, make)


@pytest.mark.parametrize("bad", [None, 0, 5])
@pytest.mark.parametrize("name", ["in_place", "as_a_list"])
def test_a_rule_that_works_in_place(gpu: Any, name: str, bad: int | None) -> None:
    ours = Problem(name, "gpu").captured(range(STEPS), bad)
    made = STEPS if bad is None else bad
    assert ours.progress.step == made
    ours.assert_like(Problem(name, "cpu").by_the_host(range(made)))


@pytest.mark.filterwarnings("ignore::minigrad.errors.CaptureWarning")
@pytest.mark.parametrize("name", ["in_place", "dividing"])
def test_compiling_changes_nothing(gpu: Any, name: str) -> None:
    ours = Problem(name, "gpu").captured(range(5))
    before = [p.numpy().copy() for p in ours.params]
    ours.steps.compile([1])
    for p, value in zip(ours.params, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)


@pytest.mark.parametrize("name", ["ranging", "picking", "looked_up", "named"])
def test_a_rule_that_needs_numbers_says_so(gpu: Any, name: str) -> None:
    with pytest.raises(NeedsHost, match="in the place of numbers"):
        Problem(name, "gpu").captured(range(2))


@pytest.mark.parametrize("name", ["ranging", pytest.param("named", marks=pytest.mark.slow)])
def test_it_is_trained_by_the_host(
    gpu: Any, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_alike(tmp_path, optimizer=OWN[name])
    assert capsys.readouterr().err.count(BY_THE_HOST) == 1


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_rule_without_return_is_an_error(gpu: Any, device: str) -> None:
    ours = Problem("silent", device)
    before = [p.numpy().copy() for p in ours.params]
    with pytest.raises(ValueError, match="'silent' returned 0 arrays"):
        ours.by_the_host(range(1))
    if device == "gpu":
        with pytest.raises(ValueError, match="'silent' returned 0 arrays"):
            ours.captured(range(1))
    for p, value in zip(ours.params, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)
