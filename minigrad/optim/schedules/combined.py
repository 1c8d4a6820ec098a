"""Schedules one after the other, and a schedule that depends on a measured value."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from minigrad.optim.optimizer import Optimizer
from minigrad.optim.schedules.base import GroupRates, Schedule, one_for_each_group


class SequentialLR(Schedule):
    """Runs the first schedule up to the first milestone, then the second from its start, and so on.

    Make the schedules for the same optimizer first. All are based on the learning rates that it had
    before the first of them was made.

    Args:
        schedulers: the schedules, one more than there are milestones.
        milestones: step numbers in ascending order.

    Raises:
        ValueError: the numbers do not fit, a schedule is for another optimizer, or it is one whose
            learning rate is not a function of the step (`ReduceLROnPlateau`).
    """

    schedulers: list[Schedule]
    milestones: list[int]

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[Schedule], milestones: Sequence[int]
    ) -> None:
        if len(schedulers) != len(milestones) + 1:
            raise ValueError(
                f"SequentialLR: {len(schedulers)} schedules need {len(schedulers) - 1} milestones, "
                f"not {len(milestones)}"
            )
        if list(milestones) != sorted(milestones):
            raise ValueError(f"SequentialLR: milestones must ascend, they are {list(milestones)}")
        for schedule in schedulers:
            if not isinstance(schedule, Schedule):
                raise ValueError(
                    f"SequentialLR: the learning rate of {type(schedule).__name__} is no function "
                    "of the step"
                )
            if schedule.optimizer is not optimizer:
                raise ValueError("SequentialLR: a schedule is for another optimizer")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        base_lrs = min(schedulers, key=lambda schedule: schedule.order).base_lrs
        for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = lr
        for schedule in schedulers:
            schedule.base_lrs = list(base_lrs)
        super().__init__(optimizer)

    @property
    def moves_rates_alone(self) -> bool:
        inner = [schedule.moves_rates_alone for schedule in self.schedulers]
        return all(inner) and super().moves_rates_alone

    def lrs_at(self, t: float) -> list[float]:
        index = bisect_right(self.milestones, t)
        start = self.milestones[index - 1] if index else 0
        return self.schedulers[index].lrs_at(t - start)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for schedule in self.schedulers:
            schedule.base_lrs = list(state["base_lrs"])
        super().load_state_dict(state)


# The state of `ReduceLROnPlateau`.
_SEEN = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


class ReduceLROnPlateau(GroupRates):
    """Multiplies learning rates by `factor` when a value has not improved for a while.

    Call `step(value)` after each measurement, for example with the validation loss of an epoch. The
    next reduction starts from the current learning rate, also if it was set by hand.

    Args:
        mode: "min" if smaller values are better, "max" if larger ones are.
        factor: the factor of a reduction, below 1.
        patience: how many measurements in a row may bring no improvement.
        threshold: how much better than the best a value must be to count as an improvement.
        threshold_mode: "rel": `threshold` is relative to the best value; "abs": it is absolute.
        cooldown: how many measurements after a reduction are not counted as bad.
        min_lr: the lower bound of the learning rates: one for all groups or one for each.
        eps: a reduction by less than this is not made.

    Raises:
        ValueError: a setting is out of range.
    """

    factor: float
    patience: int
    threshold: float
    cooldown: int
    eps: float
    num_bad_epochs: int
    cooldown_counter: int
    last_epoch: int

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if not factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be below 1, it is {factor}")
        if mode not in ("min", "max"):
            raise ValueError(f'ReduceLROnPlateau: mode must be "min" or "max", not {mode!r}')
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f'ReduceLROnPlateau: threshold_mode must be "rel" or "abs", not {threshold_mode!r}'
            )
        self.min_lrs: list[float] = one_for_each_group(
            optimizer, "ReduceLROnPlateau", "min_lr", min_lr
        )
        super().__init__(optimizer)
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.best: float = inf if mode == "min" else -inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def step(self, metrics: Any) -> None:
        """Count a measurement (a number or a tensor with one element) and reduce if needed."""
        value = float(metrics)
        self.last_epoch += 1
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, low in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                lr = max(group["lr"] * self.factor, low)
                if group["lr"] - lr > self.eps:
                    group["lr"] = lr
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "abs":
            return sign * value < sign * self.best - self.threshold
        return sign * value < sign * self.best * (1 - sign * self.threshold)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to resume, as plain numbers."""
        return {**{name: getattr(self, name) for name in _SEEN}, "lrs": self.get_last_lr()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`.

        Raises:
            ValueError: the saved schedule had another number of groups.
        """
        self.require_groups(len(state["lrs"]))
        for name in _SEEN:
            setattr(self, name, state[name])
        self.set_lrs(state["lrs"])
