"""Changes of an optimizer while a GPU makes the steps: they take effect, and a warning says if the
host has to make the next steps."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import optim
from minigrad.optim import Optimizer, counting
from tests.gpu.test_captured_optimizers import CASES, STEPS, Problem
from tests.minigrad.optim.problem import parameters
from tests.minigrad.optim.test_own_optimizer import Lion
from tests.tinyalpaca.runs import MODEL, TRAINING, final_weights, write_text
from tinyalpaca import Hook, ModelConfig, TrainConfig, train
from tinyalpaca.training.gpu_steps import BY_THE_HOST

OTHER_RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "a decay": ("adam without decay", {"weight_decay": 0.5}),
    "amsgrad": ("adamw", {"amsgrad": True}),
    "no amsgrad": ("amsgrad", {"amsgrad": False}),
    "a velocity": ("sgd", {"momentum": 0.9}),
    "no velocity": ("sgd, velocity", {"momentum": 0.0}),
    "centered": ("rmsprop, plain", {"centered": True}),
    "not centered": ("rmsprop", {"centered": False}),
}


class Attribute(Lion):
    """An optimizer with a setting outside of its groups."""

    beta = 0.9

    def settings_of(self, group: Any, step: Any, new: bool) -> Any:
        settings = super().settings_of(group, step, new)
        return {**settings, "betas": (self.beta, settings["betas"][1])}


@pytest.fixture(autouse=True)
def cases(monkeypatch: pytest.MonkeyPatch) -> None:
    more: dict[str, Any] = {
        "adam without decay": lambda p: optim.Adam(p, lr=0.01),
        "adam with decay": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.5),
        "list": lambda p: Lion(p, betas=[0.9, 0.99]),  # type: ignore[arg-type]
        "array": lambda p: Lion(p, betas=np.array([0.9, 0.99])),  # type: ignore[arg-type]
        "attribute": Attribute,
    }
    for name, make in more.items():
        monkeypatch.setitem(CASES, name, make)


@pytest.mark.parametrize("what", OTHER_RULES)
def test_another_rule_is_not_made_by_the_old_one(gpu: Any, what: str) -> None:
    name, settings = OTHER_RULES[what]
    ours = Problem(name, "gpu").captured(range(4))
    ours.optimizer.param_groups[0].update(settings)
    before = [p.numpy().copy() for p in ours.params]
    with pytest.raises(ValueError, match="has another rule or another state"):
        ours.steps.launch([1])
    for p, value in zip(ours.params, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)


def test_memory_that_was_laid_out_for_another_rule_is_laid_out_anew(gpu: Any) -> None:
    saved = Problem("adam with decay", "cpu").by_the_host(range(4)).optimizer.state_dict()
    ours, theirs = (Problem("adam without decay", device) for device in ("gpu", "cpu"))
    for problem in (ours, theirs):
        problem.optimizer.load_state_dict(saved)
    ours.captured(range(4, STEPS)).assert_like(theirs.by_the_host(range(4, STEPS)))


def change_list(optimizer: Any) -> None:
    optimizer.param_groups[0]["betas"][0] = 0.1


def change_attribute(optimizer: Any) -> None:
    optimizer.beta = 0.1


@pytest.mark.parametrize(
    ("name", "change"),
    [("list", change_list), ("array", change_list), ("attribute", change_attribute)],
)
def test_a_setting_that_is_changed_in_place_is_seen(gpu: Any, name: str, change: Any) -> None:
    found = Problem(name, "gpu"), Problem(name, "cpu")
    ours, theirs = found[0].captured(range(6)), found[1].by_the_host(range(6))
    for problem in found:
        change(problem.optimizer)
    for _ in range(6, STEPS):
        ours.steps.launch([1])
    assert ours.steps.graphs == 1 and ours.steps.look().step == STEPS
    ours.assert_like(theirs.by_the_host(range(6, STEPS)))


def test_settings_that_are_others_each_time_need_the_host(gpu: Any) -> None:
    class Restless(Lion):
        asked = 0

        def settings_of(self, group: Any, step: Any, new: bool) -> Any:
            self.asked += 1
            return {**super().settings_of(group, step, new), "betas": (1 / self.asked, 0.9)}

    reason = counting.why_not(Restless(parameters()))
    assert reason == "the settings of Restless are others each time it is asked for them"


def moved(problem: Problem) -> None:
    problem.params[0].move(problem.params[0].array * 2)


def joined(problem: Problem) -> None:
    new = mg.nn.Parameter(mg.Tensor(np.ones(3), device="gpu"))
    problem.optimizer.add_param_group({"params": [new]})


def replaced(problem: Problem) -> None:
    state = problem.optimizer.state[problem.params[1]]
    state["exp_avg"] = state["exp_avg"] * 2


def laid_out(problem: Problem) -> None:
    problem.optimizer.flatten()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (moved, "a parameter was given memory of its own"),
        (joined, "AdamW was given other parameters"),
        (replaced, "some of the state of AdamW was replaced"),
        (laid_out, "the memory of AdamW was laid out anew"),
    ],
)
def test_memory_that_is_used_no_more_is_not_written_to(gpu: Any, change: Any, said: str) -> None:
    ours = Problem("adamw", "gpu").captured(range(2))
    change(ours)
    with pytest.raises(ValueError, match=said):
        ours.steps.launch([1])


def test_a_step_with_something_around_it_is_not_the_usual_one() -> None:
    class Wrapped(Lion):
        @functools.wraps(Optimizer.step)
        def step(self, *arguments: Any, **more: Any) -> None:
            Optimizer.step(self, *arguments, **more)

    reason = counting.why_not(Wrapped(parameters()))
    assert reason == "Wrapped makes steps in a way of its own"


# Whole trainings


class Falling(optim.Schedule):
    def __init__(self, optimizer: Any, total: int) -> None:
        super().__init__(optimizer)

    def lr_at(self, base_lr: float, t: float) -> float:
        return base_lr / (1 + t // 3)


class Momentum(Falling):
    def step(self) -> None:
        super().step()
        for group in self.optimizer.param_groups:
            group["momentum"] = min(0.95, 0.1 * self.last_epoch)


class ByItself(Falling):
    def set_rates(self) -> None:
        super().set_rates()
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3 * (1 + self.last_epoch)


class Duck:
    def __init__(self, optimizer: Any, total: int) -> None:
        self.optimizer, self.made = optimizer, 0

    def lrs_at(self, t: float) -> list[float]:
        return [0.05 for _ in self.optimizer.param_groups]

    def step(self) -> None:
        self.made += 1
        for group in self.optimizer.param_groups:
            group["momentum"] = 0.01 * self.made

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made}


class Setting(Hook):
    """Sets something by hand after step 5, at which the GPU's results are also read back."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def begin(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def on_step(self, state: Any, made: Any) -> None:
        if state.step == 5:
            for group in self.optimizer.param_groups:
                group.update(self.settings)


def sgd(groups: Any) -> Optimizer:
    return optim.SGD(groups, lr=0.05, momentum=0.9)


def weights(
    folder: Path,
    device: str,
    hook: Setting | None = None,
    optimizer: Any = sgd,
    schedule: Any = None,
    **settings: Any,
) -> dict[str, np.ndarray]:
    def make(groups: Any) -> Any:
        made = optimizer(groups)
        if hook:
            hook.begin(made)
        return made

    text = folder / "text.txt"
    config = TrainConfig(
        **{**TRAINING, "data": str(text), "out": str(folder / device), "device": device},
        **{"max_steps": 13, "precision": "fp32", **settings},
    )
    hooks = [hook] if hook else []
    train(config, ModelConfig(**MODEL), optimizer=make, schedule=schedule, hooks=hooks)
    return final_weights(folder / device)


def assert_alike(folder: Path, **settings: Any) -> None:
    write_text(folder)
    ours, theirs = (weights(folder, device, **settings) for device in ("gpu", "cpu"))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAINING, "log_every", 5)


@pytest.mark.parametrize("schedule", [pytest.param(None, marks=pytest.mark.slow), Falling])
def test_a_learning_rate_set_by_hand_stays_until_the_schedule_changes_it(
    gpu: Any, tmp_path: Path, schedule: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_alike(tmp_path, hook=Setting(lr=1e-3), schedule=schedule)
    assert BY_THE_HOST not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"schedule": Momentum}, "Momentum moves more than learning rates"),
        pytest.param(
            {"schedule": ByItself},
            "ByItself moves more than learning rates",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"schedule": Duck}, "Duck moves more than learning rates", marks=pytest.mark.slow
        ),
        ({"hook": Setting(momentum=0.0), "ema": 0.9}, "SGD has another rule or another state"),
    ],
)
def test_what_the_gpu_cannot_make_the_host_does(
    gpu: Any,
    tmp_path: Path,
    settings: dict[str, Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert_alike(tmp_path, **settings)
    error = capsys.readouterr().err
    assert error.count(BY_THE_HOST) == 1 and said in error


@pytest.mark.slow
def test_another_setting_goes_on_with_graphs(
    gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_alike(tmp_path, hook=Setting(momentum=0.5))
    assert BY_THE_HOST not in capsys.readouterr().err


def test_schedules_that_move_rates_alone() -> None:
    optimizer = sgd(parameters())
    assert Falling(optimizer, 5).moves_rates_alone
    assert not Momentum(optimizer, 5).moves_rates_alone
    inner = [Falling(optimizer, 5), Momentum(optimizer, 5)]
    assert not optim.SequentialLR(optimizer, inner, [3]).moves_rates_alone
    assert optim.SequentialLR(optimizer, inner[:1], []).moves_rates_alone
    patched: Any = Falling(optimizer, 5)
    patched.step = lambda: None
    assert not patched.moves_rates_alone


def test_a_schedule_of_measured_values_is_none_of_a_training(tmp_path: Path) -> None:
    write_text(tmp_path)
    with pytest.raises(TypeError, match="ReduceLROnPlateau does not"):
        weights(tmp_path, "cpu", schedule=lambda o, total: optim.ReduceLROnPlateau(o))
