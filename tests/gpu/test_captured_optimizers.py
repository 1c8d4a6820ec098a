"""Every optimizer's captured steps equal those that the host makes, on a GPU and on the CPU."""

import copy
import warnings
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import optim
from minigrad.errors import CaptureWarning
from minigrad.optim import Optimizer, Rule, counting
from minigrad.optim.clip import clip_scale, gradient_norm
from tests.minigrad.optim.problem import gradients, parameters
from tests.minigrad.optim.test_own_optimizer import Lion, Signs
from tinyalpaca.training.device_steps import DeviceSteps

STEPS, MAX_NORM = 12, 30.0  # some gradients have a larger norm, some have not


class counted(Rule):
    """A rule that computes with the step count, and dampens after its first step."""

    state = ("step", "mean")

    def step(xp, p, g, mean, *, lr, beta, step, dampening):
        mean = beta * mean + (1 - beta) * (1 - dampening) * g
        return p - lr * mean / (1 - beta**step) / xp.sqrt(step), mean


class Counted(Optimizer):
    rule = counted

    def __init__(self, params: Any, lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr, "beta": 0.9})

    def settings_of(self, group: Any, step: Any, new: bool) -> Any:
        return {**super().settings_of(group, step, new), "dampening": 0.0 if new else 0.25}


def groups(p: list[Any], **settings: Any) -> list[dict[str, Any]]:
    return [{"params": p[:2], **settings}, {"params": p[2:], "lr": 0.02}]


def muon(p: list[Any], **settings: Any) -> Optimizer:
    matrices = {"params": p[:1], "orthogonal": True, "parts": 3, "weight_decay": 0.2}
    return optim.Muon([matrices, {"params": p[1:]}], **settings)


CASES: dict[str, Any] = {
    "sgd": lambda p: optim.SGD(groups(p, weight_decay=0.1), lr=0.01),
    "sgd, velocity": lambda p: optim.SGD(groups(p), lr=0.01, momentum=0.9, dampening=0.5),
    "sgd, nesterov": lambda p: optim.SGD(
        groups(p, weight_decay=0.2), lr=0.01, momentum=0.9, nesterov=True, maximize=True
    ),
    "adam": lambda p: optim.Adam(groups(p, weight_decay=0.1), lr=0.01),
    "adamw": lambda p: optim.AdamW(groups(p, weight_decay=0.5, betas=(0.8, 0.9)), lr=0.01),
    "adamw, climbing": lambda p: optim.AdamW(p, lr=0.01, maximize=True),
    "amsgrad": lambda p: optim.AdamW(groups(p, amsgrad=True), lr=0.01),
    "adam's amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "rmsprop, plain": lambda p: optim.RMSprop(p, lr=0.01, weight_decay=0.1, maximize=True),
    "muon": muon,
    "muon, climbing": lambda p: muon(p, maximize=True),
    "lion": lambda p: Lion(groups(p, weight_decay=0.3), betas=(0.8, 0.9)),
    "signs": lambda p: Signs(p, maximize=True),
    "counted": Counted,
}


# Cases that take the same path through the code as another one: slow tests.
RARE = ("adamw, climbing", "adam's amsgrad", "rmsprop, plain", "muon, climbing", "sgd")
MOST = [pytest.param(name, marks=pytest.mark.slow if name in RARE else ()) for name in CASES]


class Problem:
    """An optimizer whose parameters get the gradients of `problem.gradients`, step by step."""

    def __init__(self, name: str, device: str, dtype: Any = np.float64) -> None:
        self.params: list[Any] = parameters(dtype)
        for p in self.params:
            p.move(mg.Device(device).asarray(p.array))
        self.optimizer = CASES[name](self.params)
        self.flat = self.optimizer.flatten()
        self.base = np.array([group["lr"] for group in self.optimizer.param_groups])
        self.device, self.dtype = device, dtype

    def rates(self, step: int) -> Any:
        return self.base * (1 + step)

    def by_the_host(self, steps: range) -> "Problem":
        self.flat.attach_grad()
        for step in steps:
            for p, g in zip(self.params, gradients(step), strict=True):
                p.grad.array[...] = p.device.asarray(g.astype(self.dtype))
            for group, lr in zip(self.optimizer.param_groups, self.rates(step), strict=True):
                group["lr"] = float(lr)
            norm = gradient_norm([self.flat.grad])
            self.optimizer.step(clip_scale(norm, MAX_NORM))
        return self

    def captured(self, steps: range, bad: int | None = None, graph: bool = True) -> "Problem":
        """Make captured steps. If step `bad` is given, its gradient is infinite."""
        steps_of = [np.concatenate([g.reshape(-1) for g in gradients(s)]) for s in range(STEPS)]
        table = np.stack(steps_of).astype(self.dtype)
        if bad is not None:
            table[bad, 3] = np.inf
        on_device = mg.Device("gpu").asarray(table)

        def loss(x: Any, y: Any, draw: Any, number: int) -> mg.Tensor:
            """A loss whose gradient is the current row."""
            parts = self.flat.views(on_device[draw].reshape(-1))
            terms = [
                (p * mg.Tensor(part)).sum() for p, part in zip(self.params, parts, strict=True)
            ]
            return terms[0] + terms[1] + terms[2] + terms[3]

        rates = np.stack([self.rates(step) for step in range(STEPS)], axis=1)
        self.steps = DeviceSteps(
            *(self.flat, self.optimizer, loss),
            **{"tokens": np.zeros(9), "time": 1, "windows": STEPS, "rates": rates},
            **{"ring": STEPS, "max_norm": MAX_NORM, "graph": graph},
        )
        made = counting.steps_made(self.optimizer)
        self.steps.set_windows(np.zeros(STEPS, np.int64))
        self.steps.set_position(steps[0], updates=made, draw=steps[0])
        with np.errstate(all="ignore"):  # a GPU does not warn of infinities
            for _ in steps:
                self.steps.launch([1])
        self.progress = self.steps.look()
        counting.count_steps(self.optimizer, self.progress.step - steps[0])
        return self

    def assert_like(self, other: "Problem", tolerance: float = 1e-11) -> None:
        """Both have the same weights and the same state."""
        ours, theirs = (found.optimizer.state_dict()["state"] for found in (self, other))
        assert ours.keys() == theirs.keys()
        for p, q in zip(self.params, other.params, strict=True):
            close(p.numpy(), q.numpy(), tolerance)
        for number, entry in ours.items():
            assert entry.keys() == theirs[number].keys()
            for name, value in entry.items():
                close(value, theirs[number][name], tolerance)


def close(ours: Any, theirs: Any, tolerance: float) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_captured_steps_are_the_hosts(gpu: Any, name: str) -> None:
    ours = Problem(name, "gpu").captured(range(STEPS))
    assert ours.steps.graphs == 1 and gpu.counts["graph launches"] >= STEPS - 3
    assert ours.progress.step == STEPS and not ours.progress.halted
    assert gpu.counts["d2h"] < 40  # steps copy nothing to the host
    for device in ("gpu", "cpu"):
        ours.assert_like(Problem(name, device).by_the_host(range(STEPS)))


@pytest.mark.parametrize("name", MOST)
def test_in_float32(gpu: Any, name: str) -> None:
    """Nothing is computed in a lower precision than that of the weights."""
    ours = Problem(name, "gpu", np.float32).captured(range(STEPS))
    theirs = Problem(name, "cpu", np.float32).by_the_host(range(STEPS))
    assert ours.flat.array.dtype == np.float32
    ours.assert_like(theirs, 2e-5 if "muon" in name else 3e-6)


@pytest.mark.parametrize("bad", [0, 5])
@pytest.mark.parametrize("name", MOST)
def test_a_step_that_is_not_finite_changes_nothing(gpu: Any, name: str, bad: int) -> None:
    """Later steps change nothing either: everything is as if they had not been launched."""
    ours = Problem(name, "gpu").captured(range(9), bad)
    assert ours.progress.halted and ours.progress.step == bad
    theirs = Problem(name, "cpu").by_the_host(range(bad))
    ours.assert_like(theirs)
    ours.captured(range(bad, STEPS)).assert_like(theirs.by_the_host(range(bad, STEPS)))


@pytest.mark.parametrize("name", MOST)
def test_one_way_goes_on_where_the_other_has_stopped(gpu: Any, name: str) -> None:
    wanted = Problem(name, "cpu").by_the_host(range(STEPS))
    ours, theirs = Problem(name, "gpu"), Problem(name, "cpu")
    ours.captured(range(1)), theirs.by_the_host(range(1))
    for step, other in ((1, 5), (5, STEPS)):
        moved = Problem(name, "gpu"), Problem(name, "cpu")
        for new, old in zip(moved, (theirs, ours), strict=True):  # crosswise
            for p, q in zip(new.params, old.params, strict=True):
                p.array[...] = p.device.asarray(q.numpy())
            new.optimizer.load_state_dict(copy.deepcopy(old.optimizer.state_dict()))
        ours, theirs = moved
        ours.captured(range(step, other)), theirs.by_the_host(range(step, other))
    ours.assert_like(wanted)
    theirs.assert_like(wanted)


def test_without_graphs_and_by_the_textbook(gpu: Any) -> None:
    wanted = Problem("adamw", "cpu").by_the_host(range(STEPS))
    Problem("adamw", "gpu").captured(range(STEPS), graph=False).assert_like(wanted)
    kernels = gpu.counts["adamw_update_ordered"]
    assert kernels == 2 * STEPS
    with mg.textbook():
        Problem("adamw", "gpu").captured(range(STEPS)).assert_like(wanted)
    assert gpu.counts["adamw_update_ordered"] == kernels


def test_a_setting_that_is_changed_is_not_that_of_an_old_graph(gpu: Any) -> None:
    found = Problem("sgd, velocity", "gpu"), Problem("sgd, velocity", "cpu")
    ours, theirs = found[0].captured(range(6)), found[1].by_the_host(range(6))
    steps = ours.steps
    for problem in found:
        problem.optimizer.param_groups[0]["momentum"] = 0.5
    for _ in range(6, STEPS):
        steps.launch([1])
    assert steps.graphs == 1 and steps.look().step == STEPS
    ours.assert_like(theirs.by_the_host(range(6, STEPS)))


class looking(Rule):
    def step(xp, p, g, *, lr):
        return p - lr * (g if float(g.sum()) > 0 else 2 * g)


class Looking(Optimizer):
    rule = looking

    def __init__(self, params: Any, lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr})


def test_a_rule_that_looks_at_values_runs_without_a_graph_and_that_is_said(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CASES, "looking", Looking)
    wanted = Problem("looking", "cpu").by_the_host(range(STEPS))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        ours = Problem("looking", "gpu").captured(range(STEPS))
    assert ["kernel by kernel" in str(w.message) for w in found] == [True]
    assert found[0].category is CaptureWarning and ours.steps.graphs == 0
    ours.assert_like(wanted)


def test_what_needs_the_host_says_why(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CASES:
        assert counting.why_not(Problem(name, "gpu").optimizer) is None
    own = Problem("lion", "gpu").optimizer
    own.step = lambda grad_scale: None
    assert counting.why_not(own) == "Lion makes steps in a way of its own"
    own = Problem("adam", "gpu").optimizer
    own.state[own.parameters()[1]]["step"] = 4
    assert counting.why_not(own) == "some parameters have had more updates than others"
    monkeypatch.setattr(looking, "captured", False)
    reason = counting.why_not(Looking(parameters()))
    assert reason == "the rule 'looking' of Looking looks at values"
    with pytest.raises(ValueError, match="looks at values"):
        monkeypatch.setitem(CASES, "looking", Looking)
        Problem("looking", "gpu").captured(range(2))
