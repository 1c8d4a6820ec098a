"""Compares learning-rate schedules with PyTorch's, and the warm-up with results by hand."""

import json
from math import cos, pi
from typing import Any

import numpy as np
import pytest

from minigrad import nn
from minigrad.optim import (
    SGD,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    Schedule,
    StepLR,
    WarmupCosineLR,
    WarmupLinearLR,
)

SCHEDULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "constant": (ConstantLR, {"factor": 0.25, "total_iters": 7}),
    "step": (StepLR, {"step_size": 10, "gamma": 0.5}),
    "milestones": (MultiStepLR, {"milestones": [3, 8, 8, 50], "gamma": 0.3}),
    "exponential": (ExponentialLR, {"gamma": 0.97}),
    "line up": (LinearLR, {}),
    "line down": (LinearLR, {"start_factor": 0.9, "end_factor": 0.1, "total_iters": 11}),
    "function": (LambdaLR, {"lr_lambda": lambda t: 1 / (1 + t)}),
    "functions": (LambdaLR, {"lr_lambda": [lambda t: 0.9**t, lambda t: 1 / (1 + t * t)]}),
    "cosine": (CosineAnnealingLR, {"T_max": 40, "eta_min": 0.001}),
    "cosine to 0": (CosineAnnealingLR, {"T_max": 23}),
    "restarts": (CosineAnnealingWarmRestarts, {"T_0": 7, "eta_min": 0.001}),
    "restarts, doubling": (CosineAnnealingWarmRestarts, {"T_0": 5, "T_mult": 2, "eta_min": 0.01}),
    "restarts, tripling": (CosineAnnealingWarmRestarts, {"T_0": 3, "T_mult": 3}),
}


def optimizer() -> SGD:
    groups = [{"params": [nn.Parameter([1.0])]}, {"params": [nn.Parameter([1.0])], "lr": 0.5}]
    return SGD(groups, lr=0.1)


def torch_pair(label: str) -> tuple[Schedule, Any]:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    kind, settings = SCHEDULES[label]
    parameters = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    other = torch.optim.SGD(
        [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.5}], lr=0.1
    )
    return kind(optimizer(), **settings), getattr(torch.optim.lr_scheduler, kind.__name__)(
        other, **settings
    )


@pytest.mark.parametrize("label", SCHEDULES)
def test_equal_to_torch_over_many_steps(label: str) -> None:
    ours, theirs = torch_pair(label)
    for _ in range(200):
        # The annealed rate is a difference of numbers of the size of lr, so it needs atol at 0.
        # PyTorch's own recursion has errors of this size.
        assert np.allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-10, atol=1e-14)
        ours.step()
        theirs.optimizer.step()  # PyTorch warns if a schedule steps before the optimizer
        theirs.step()


@pytest.mark.parametrize("label", [label for label in SCHEDULES if "restarts" in label])
def test_restarts_at_fractions_of_an_epoch(label: str) -> None:
    ours, theirs = torch_pair(label)
    for i in range(300):
        ours.step(i / 8)  # type: ignore[call-arg]
        theirs.step(i / 8)
        assert np.allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-10, atol=1e-14)
    for _ in range(20):
        ours.step()
        theirs.step()
        assert np.allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-10, atol=1e-14)


def test_every_restart_starts_at_the_peak() -> None:
    """Also after many steps, where the logarithm that gives the period is rounded to an integer."""
    for factor in (2, 3, 5):
        schedule = CosineAnnealingWarmRestarts(optimizer(), T_0=3, T_mult=factor)
        start, length = 0, 3
        for _ in range(12):
            assert schedule.lr_at(1.0, start) == 1.0
            if start:
                before = schedule.lr_at(1.0, start - 1)
                assert before < 0.5
            start, length = start + length, length * factor


def test_restarts_by_hand() -> None:
    """Peaks are at 0, 4 and 12; a step may be a fraction of an epoch."""
    schedule = CosineAnnealingWarmRestarts(optimizer(), T_0=4, T_mult=2, eta_min=0.02)
    rates = {}
    for epoch in (0.0, 0.5, 3.0, 4.0, 5.0, 8.0, 12.0, 20.0):
        schedule.step(epoch)
        rates[epoch] = schedule.get_last_lr()[0]
    part = {0.0: 0.0, 0.5: 1 / 8, 3.0: 3 / 4, 4.0: 0.0, 5.0: 1 / 8, 8.0: 1 / 2, 12.0: 0.0}
    part[20.0] = 1 / 2
    for epoch, share in part.items():
        assert rates[epoch] == pytest.approx(0.02 + 0.08 * (1 + cos(pi * share)) / 2, rel=1e-12)
    schedule.step()
    assert schedule.last_epoch == 21
    for wrong in (-0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a number from 0 on"):
            schedule.step(wrong)


def test_a_line_by_hand() -> None:
    """By default from a third of the rate to the whole rate in five steps."""
    schedule, rates = LinearLR(optimizer()), []
    for _ in range(7):
        rates.append(schedule.get_last_lr()[1])
        schedule.step()
    assert rates == pytest.approx([0.5 * x / 15 for x in (5, 7, 9, 11, 13, 15, 15)], rel=1e-12)


def test_warmup_by_hand() -> None:
    schedule = WarmupCosineLR(optimizer(), warmup_steps=4, total_steps=10, eta_min=0.01)
    rates = []
    for _ in range(13):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    expected = [0.025, 0.05, 0.075, 0.1]
    expected += [0.01 + 0.09 * (1 + cos(pi * k / 6)) / 2 for k in range(7)]
    expected += [0.01, 0.01]
    assert np.allclose(rates, expected, rtol=1e-12)


def test_a_line_after_the_warmup_by_hand() -> None:
    schedule = WarmupLinearLR(optimizer(), warmup_steps=2, total_steps=6, eta_min=0.02)
    rates = []
    for _ in range(8):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.08, 0.06, 0.04, 0.02, 0.02], rel=1e-12)


def test_a_line_over_a_share_of_the_steps_by_hand() -> None:
    schedule = WarmupLinearLR(optimizer(), 2, 12, eta_min=0.02, cooldown=0.4)
    rates = []
    for _ in range(14):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    expected = [0.05, *[0.1] * 8, 0.08, 0.06, 0.04, 0.02, 0.02]
    assert rates == pytest.approx(expected, rel=1e-12)
    for share in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match=r"cooldown must be in \(0, 1\]"):
            WarmupLinearLR(optimizer(), 2, 12, cooldown=share)


def test_the_shortest_schedules() -> None:
    """Schedules with one step."""
    assert WarmupCosineLR(optimizer(), warmup_steps=1, total_steps=1).get_last_lr() == [0.1, 0.5]
    schedule = CosineAnnealingLR(optimizer(), T_max=1)
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0, 0], abs=1e-15)


def test_warmup_without_warm_up_and_without_cosine() -> None:
    first = WarmupCosineLR(optimizer(), warmup_steps=0, total_steps=2)
    assert first.get_last_lr() == [0.1, 0.5]
    second = WarmupCosineLR(optimizer(), warmup_steps=3, total_steps=3)
    for expected in (0.1 / 3, 0.2 / 3, 0.1, 0.1):
        assert np.isclose(second.get_last_lr()[0], expected, rtol=1e-12)
        second.step()


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (ConstantLR, {"factor": 0.5, "total_iters": 2}, [0.05, 0.05, 0.1, 0.1]),
        (StepLR, {"step_size": 2, "gamma": 0.5}, [0.1, 0.1, 0.05, 0.05, 0.025]),
        (MultiStepLR, {"milestones": [1, 3], "gamma": 0.1}, [0.1, 0.01, 0.01, 0.001]),
        (MultiStepLR, {"milestones": [2, 2], "gamma": 0.1}, [0.1, 0.1, 0.001]),
        (ExponentialLR, {"gamma": 0.5}, [0.1, 0.05, 0.025, 0.0125]),
        (LinearLR, {"start_factor": 0.25, "total_iters": 3}, [0.025, 0.05, 0.075, 0.1, 0.1]),
        (LinearLR, {"start_factor": 1, "end_factor": 0, "total_iters": 2}, [0.1, 0.05, 0, 0]),
        (LambdaLR, {"lr_lambda": lambda t: (t + 1) ** 2}, [0.1, 0.4, 0.9]),
    ],
)
def test_by_hand(kind: Any, settings: dict[str, Any], expected: list[float]) -> None:
    schedule = kind(optimizer(), **settings)
    for lr in expected:
        # The second group started at 0.5, five times the first.
        assert np.allclose(schedule.get_last_lr(), [lr, 5 * lr], rtol=1e-12, atol=0)
        schedule.step()


def test_a_learning_rate_set_by_hand_stays_until_the_schedule_changes_it() -> None:
    opt = optimizer()
    schedule = StepLR(opt, step_size=3, gamma=0.5)
    opt.param_groups[0]["lr"] = 0.7
    for _ in range(2):
        schedule.step()
        assert schedule.get_last_lr() == [0.7, 0.5]
    state = schedule.state_dict()
    schedule.step()
    assert schedule.get_last_lr() == [0.05, 0.25]
    schedule.load_state_dict(state)
    assert schedule.get_last_lr() == [0.7, 0.5]
    schedule.step()
    assert schedule.get_last_lr() == [0.05, 0.25]


def test_a_state_without_present_learning_rates_loads() -> None:
    """Earlier versions saved states without them."""
    schedule = StepLR(optimizer(), step_size=3, gamma=0.5)
    schedule.load_state_dict({"last_epoch": 4, "base_lrs": [1.0, 2.0]})
    assert schedule.get_last_lr() == [0.5, 1.0]


def test_constant_by_default() -> None:
    schedule = ConstantLR(optimizer())
    for _ in range(3):
        schedule.step()
        assert schedule.get_last_lr() == [0.1, 0.5]


ALL = {**SCHEDULES, "warm-up": (WarmupCosineLR, {"warmup_steps": 5, "total_steps": 50})}


@pytest.mark.parametrize("label", ALL)
def test_a_state_goes_on(label: str) -> None:
    kind, settings = ALL[label]
    first = kind(optimizer(), **settings)
    for _ in range(13):
        first.step()
    state = json.loads(json.dumps(first.state_dict()))
    fresh = optimizer()
    second = kind(fresh, **settings)
    second.load_state_dict(state)
    assert second.get_last_lr() == first.get_last_lr()
    for _ in range(20):
        first.step()
        second.step()
        assert second.get_last_lr() == first.get_last_lr() == [g["lr"] for g in fresh.param_groups]


def test_a_schedule_on_a_resumed_optimizer_keeps_the_peak() -> None:
    """The optimizer's saved lr is the annealed one, but the schedule's state has the peak."""
    opt = optimizer()
    schedule = CosineAnnealingLR(opt, T_max=10)
    for _ in range(9):
        schedule.step()
    resumed = optimizer()
    resumed.load_state_dict(opt.state_dict())
    again = CosineAnnealingLR(resumed, T_max=10)
    again.load_state_dict(schedule.state_dict())
    assert again.get_last_lr() == schedule.get_last_lr()
    assert again.base_lrs == [0.1, 0.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: StepLR(o, 0), "StepLR: step_size must be at least 1, it is 0"),
        (lambda o: MultiStepLR(o, [3, 1]), r"milestones must ascend, they are \[3, 1\]"),
        (lambda o: LinearLR(o, 0), r"start_factor must be in \(0, 1\], it is 0"),
        (lambda o: LinearLR(o, 0.5, 1.5), r"end_factor must be in \[0, 1\], it is 1.5"),
        (lambda o: LinearLR(o, total_iters=0), "total_iters must be at least 1, it is 0"),
        (lambda o: LambdaLR(o, [lambda t: t]), "1 functions for 2 groups"),
        (lambda o: CosineAnnealingLR(o, 0), "CosineAnnealingLR: T_max must be at least 1"),
        (lambda o: CosineAnnealingWarmRestarts(o, 0), "T_0 and T_mult must be at least 1"),
        (lambda o: CosineAnnealingWarmRestarts(o, 2, 0), "T_0 and T_mult must be at least 1"),
        (lambda o: WarmupCosineLR(o, 5, 4), "warmup_steps <= total_steps, not 5 and 4"),
        (lambda o: WarmupCosineLR(o, -1, 4), "0 <= warmup_steps"),
        (lambda o: CosineAnnealingWarmRestarts(o, 2).step(-1), "a number from 0 on, not -1"),
        (
            lambda o: StepLR(o, 1).load_state_dict({"last_epoch": 1, "base_lrs": [1.0]}),
            "the saved schedule has 1 groups, the optimizer 2",
        ),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(optimizer())
