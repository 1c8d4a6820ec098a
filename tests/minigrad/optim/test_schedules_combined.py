"""OneCycleLR, SequentialLR and ReduceLROnPlateau."""

import json
from typing import Any

import numpy as np
import pytest

from minigrad import nn
from minigrad.optim import (
    SGD,
    AdamW,
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)


def sgd(momentum: float = 0.9) -> SGD:
    groups = [{"params": [nn.Parameter([1.0])]}, {"params": [nn.Parameter([1.0])], "lr": 0.5}]
    return SGD(groups, lr=0.1, momentum=momentum)


def torch_sgd(torch: Any) -> Any:
    parameters = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.5}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


CYCLES: dict[str, dict[str, Any]] = {
    "plain": {"max_lr": 0.3, "total_steps": 40},
    "epochs": {"max_lr": [0.3, 0.7], "epochs": 4, "steps_per_epoch": 9},
    "line": {"max_lr": 0.3, "total_steps": 37, "anneal_strategy": "linear", "pct_start": 0.21},
    "three phases": {"max_lr": 0.3, "total_steps": 41, "three_phase": True, "pct_start": 0.4},
    "other factors": {
        "max_lr": 0.3,
        "total_steps": 20,
        "div_factor": 10.0,
        "final_div_factor": 50.0,
        "base_momentum": 0.5,
        "max_momentum": 0.99,
    },
    "no momentum": {"max_lr": 0.3, "total_steps": 20, "cycle_momentum": False},
    "down only": {"max_lr": 0.3, "total_steps": 20, "pct_start": 0.0},
}


@pytest.mark.parametrize("label", CYCLES)
def test_one_cycle_is_torchs(label: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    optimizer, other = sgd(), torch_sgd(torch)
    ours = OneCycleLR(optimizer, **CYCLES[label])
    theirs = torch.optim.lr_scheduler.OneCycleLR(other, **CYCLES[label])
    for _ in range(ours.total_steps):
        assert np.allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-10, atol=1e-14)
        for own, group in zip(optimizer.param_groups, other.param_groups, strict=True):
            assert np.isclose(own["momentum"], group["momentum"], rtol=1e-12)
        ours.step()
        other.step()
        theirs.step()
    with pytest.raises(ValueError, match=r"step .* of a cycle of"):
        ours.step()


def test_one_cycle_by_hand() -> None:
    """Linear: up in 4 steps, down in 5; momentum in the opposite direction."""
    optimizer = AdamW([nn.Parameter([1.0])], betas=(0.5, 0.99))
    schedule = OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=10,
        pct_start=0.5,
        anneal_strategy="linear",
        div_factor=5.0,
        final_div_factor=2.0,
        base_momentum=0.8,
        max_momentum=0.9,
    )
    rates, momenta = [], []
    for _ in range(10):
        rates += schedule.get_last_lr()
        momenta.append(optimizer.param_groups[0]["betas"][0])
        schedule.step()
    assert np.allclose(rates, [0.2, 0.4, 0.6, 0.8, 1, 0.82, 0.64, 0.46, 0.28, 0.1], rtol=1e-12)
    down = [0.9, 0.875, 0.85, 0.825, 0.8]
    assert np.allclose(momenta, [*down, 0.82, 0.84, 0.86, 0.88, 0.9], rtol=1e-12)
    assert optimizer.param_groups[0]["betas"][1] == 0.99


def test_one_cycle_resumes_with_its_momentum() -> None:
    first_optimizer, second_optimizer = sgd(), sgd()
    first = OneCycleLR(first_optimizer, max_lr=0.3, total_steps=20)
    for _ in range(7):
        first.step()
    second = OneCycleLR(second_optimizer, max_lr=0.3, total_steps=20)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(12):
        for a, b in zip(first_optimizer.param_groups, second_optimizer.param_groups, strict=True):
            assert (a["lr"], a["momentum"]) == (b["lr"], b["momentum"])
        first.step()
        second.step()


def sequence(optimizer: Any, module: Any) -> Any:
    """Three schedules, from minigrad or from PyTorch, which has the same names."""
    parts = [
        module.LinearLR(optimizer, 0.1, 1.0, total_iters=4),
        module.ExponentialLR(optimizer, 0.9),
        module.CosineAnnealingLR(optimizer, 6),
    ]
    return module.SequentialLR(optimizer, parts, [4, 9])


class Ours:
    LinearLR, ExponentialLR = LinearLR, ExponentialLR
    CosineAnnealingLR, SequentialLR = CosineAnnealingLR, SequentialLR


def test_sequential_by_hand() -> None:
    """A constant rate, then one halved every two steps, both based on the optimizer's rate."""
    optimizer = sgd()
    parts = [ConstantLR(optimizer, 0.1, total_iters=10), StepLR(optimizer, 2, 0.5)]
    schedule = SequentialLR(optimizer, parts, [3])
    rates = []
    for _ in range(8):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    assert np.allclose(rates, [0.01, 0.01, 0.01, 0.1, 0.1, 0.05, 0.05, 0.025], rtol=1e-12)


def test_sequential_does_not_depend_on_the_order_of_making() -> None:
    optimizer = sgd()
    second = StepLR(optimizer, 2, 0.5)
    first = ConstantLR(optimizer, 0.1, total_iters=10)
    schedule = SequentialLR(optimizer, [first, second], [1])
    assert np.allclose(schedule.get_last_lr(), [0.01, 0.05])
    schedule.step()
    assert np.allclose(schedule.get_last_lr(), [0.1, 0.5])


def test_sequential_is_torchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    other = torch_sgd(torch)
    ours, theirs = sequence(sgd(), Ours), sequence(other, torch.optim.lr_scheduler)
    for _ in range(9):
        assert np.allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-10)
        ours.step()
        other.step()
        theirs.step()


def test_sequential_resumes() -> None:
    first, second = sequence(sgd(), Ours), sequence(sgd(), Ours)
    for _ in range(6):
        first.step()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(8):
        assert first.get_last_lr() == second.get_last_lr()
        first.step()
        second.step()


VALUES = [5.0, 4.0, 4.0, 4.0, 3.9999, 3.9999, 4.1, 3.0, 3.1, 3.1, 3.1, float("nan"), 3.1, 2.9, 2.9]
PLATEAUS: dict[str, dict[str, Any]] = {
    "plain": {"patience": 1},
    "larger is better": {"mode": "max", "patience": 2, "factor": 0.5},
    "absolute": {"threshold_mode": "abs", "threshold": 0.5, "patience": 0, "factor": 0.7},
    "absolute, larger": {"mode": "max", "threshold_mode": "abs", "threshold": 0.5, "patience": 0},
    "cooling": {"patience": 0, "cooldown": 2, "factor": 0.5},
    "a floor": {"patience": 0, "factor": 0.5, "min_lr": [0.02, 0.3]},
    "small changes left out": {"patience": 0, "factor": 0.5, "eps": 0.04},
}


@pytest.mark.parametrize("label", PLATEAUS)
def test_plateau_is_torchs(label: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    optimizer, other = sgd(), torch_sgd(torch)
    ours = ReduceLROnPlateau(optimizer, **PLATEAUS[label])
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(other, **PLATEAUS[label])
    for value in VALUES:
        ours.step(value)
        theirs.step(value)
        assert np.allclose(ours.get_last_lr(), [g["lr"] for g in other.param_groups], rtol=1e-12)


def test_plateau_by_hand() -> None:
    optimizer = sgd()
    schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=1, min_lr=0.04)
    rates = []
    for value in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 2.0, 2.0):
        schedule.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    # The second bad value in a row halves the rate. The next one does not count (cooldown). Two
    # more reduce it to min_lr.
    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.04, 0.04, 0.04, 0.04]


def test_plateau_respects_a_rate_set_by_hand_and_resumes() -> None:
    first_optimizer, second_optimizer = sgd(), sgd()
    first = ReduceLROnPlateau(first_optimizer, patience=0, factor=0.5)
    first.step(1.0)
    first_optimizer.param_groups[0]["lr"] = 0.8
    first.step(2.0)
    assert first.get_last_lr() == [0.4, 0.25]
    second = ReduceLROnPlateau(second_optimizer, patience=0, factor=0.5)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for value in (0.5, 0.6, 0.4, 0.7):
        assert first.get_last_lr() == second.get_last_lr()
        first.step(value)
        second.step(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: OneCycleLR(o, 0.1), "needs total_steps, or epochs and steps_per_epoch"),
        (lambda o: OneCycleLR(o, 0.1, epochs=3), "needs total_steps, or epochs and steps"),
        (lambda o: OneCycleLR(o, 0.1, steps_per_epoch=3), "needs total_steps, or epochs and steps"),
        (lambda o: OneCycleLR(o, 0.1, 0), "total_steps must be at least 1, it is 0"),
        (lambda o: OneCycleLR(o, 0.1, 9, pct_start=1.5), r"pct_start must be in \[0, 1\]"),
        (lambda o: OneCycleLR(o, 0.1, 9, anneal_strategy="x"), '"cos" or "linear", not \'x\''),
        (lambda o: OneCycleLR(o, [0.1], 9), "1 values of max_lr for 2 groups"),
        (lambda o: SequentialLR(o, [StepLR(o, 1)], [2]), "1 schedules need 0 milestones, not 1"),
        (
            lambda o: SequentialLR(o, [StepLR(o, 1)] * 3, [4, 2]),
            r"milestones must ascend, they are \[4, 2\]",
        ),
        (lambda o: SequentialLR(o, [StepLR(sgd(), 1)], []), "is for another optimizer"),
        (
            lambda o: SequentialLR(o, [ReduceLROnPlateau(o)], []),
            "of ReduceLROnPlateau is no function of the step",
        ),
        (lambda o: ReduceLROnPlateau(o, factor=1.0), "factor must be below 1, it is 1.0"),
        (lambda o: ReduceLROnPlateau(o, "least"), '"min" or "max", not \'least\''),
        (lambda o: ReduceLROnPlateau(o, threshold_mode="x"), '"rel" or "abs", not \'x\''),
        (lambda o: ReduceLROnPlateau(o, min_lr=[0.1]), "1 values of min_lr for 2 groups"),
        (
            lambda o: ReduceLROnPlateau(o).load_state_dict({"lrs": [1.0]}),
            "the saved schedule has 1 groups, the optimizer 2",
        ),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(sgd())


def test_a_cycle_without_a_way_up_starts_at_its_peak() -> None:
    schedule = OneCycleLR(sgd(), max_lr=1.0, total_steps=10, pct_start=0.1)
    assert schedule.get_last_lr() == [1.0, 1.0]


def test_the_length_of_a_cycle_is_its_epochs_times_their_steps() -> None:
    assert OneCycleLR(sgd(), 0.1, epochs=3, steps_per_epoch=4).total_steps == 12


def test_a_plateau_by_hand_with_a_threshold() -> None:
    """A change counts as an improvement from the threshold on, relative or absolute."""
    for mode, value, better in (("min", 1.9, 1.88), ("max", 2.1, 2.12)):
        for kind, threshold in (("rel", 0.055), ("abs", 0.11)):
            schedule = ReduceLROnPlateau(
                sgd(), mode, patience=9, threshold=threshold, threshold_mode=kind
            )
            schedule.step(2.0)
            schedule.step(value)
            assert (schedule.best, schedule.num_bad_epochs) == (2.0, 1)
            schedule.step(better)
            assert (schedule.best, schedule.num_bad_epochs) == (better, 0)


def test_a_plateau_goes_on_at_once_unless_it_is_to_cool_down() -> None:
    for settings, factors in (({}, (0.5, 0.25)), ({"cooldown": 1}, (0.5, 0.5))):
        schedule = ReduceLROnPlateau(sgd(), factor=0.5, patience=0, **settings)
        schedule.step(1.0)
        for factor in factors:
            schedule.step(2.0)
            assert schedule.get_last_lr() == [0.1 * factor, 0.5 * factor]


def test_one_cycle_without_a_momentum_to_move() -> None:
    class Plain(SGD):
        def __init__(self) -> None:
            super().__init__([nn.Parameter([1.0])])
            del self.param_groups[0]["momentum"]

    with pytest.raises(ValueError, match="Plain has no momentum to cycle; pass cycle_momentum"):
        OneCycleLR(Plain(), 0.1, 9)
    OneCycleLR(Plain(), 0.1, 9, cycle_momentum=False)
