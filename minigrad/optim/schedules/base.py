"""The base class of learning-rate schedules."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from minigrad.optim.optimizer import Optimizer

OURS = "minigrad.optim.schedules."


class GroupRates:
    """Reads and writes the learning rates of an optimizer's groups."""

    def __init__(self, optimizer: Optimizer) -> None:
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(
                f"{type(self).__name__}: the first argument is the optimizer whose learning rates "
                f"it sets, not a {type(optimizer).__name__}"
            )
        self.optimizer = optimizer

    def get_last_lr(self) -> list[float]:
        """The current learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def set_lrs(self, lrs: Sequence[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr

    def require_groups(self, saved: int) -> None:
        own = len(self.optimizer.param_groups)
        if saved != own:
            raise ValueError(f"the saved schedule has {saved} groups, the optimizer {own}")


class Schedule(GroupRates):
    """Base class: counts steps and sets "lr" of every group of an optimizer.

    A learning rate that you set by hand (`group["lr"] = ...`) stays until the schedule itself
    changes it: until the next boundary for `StepLR`, until the next step for a cosine. From then on
    the schedule's own values are used. They are computed from the learning rates that the groups
    had when the schedule was made.

    Args:
        optimizer: its groups' current learning rates are the base values.

    Attributes:
        base_lrs: the learning rate of each group when the schedule was made; for a group that was
            added later, its learning rate at the next step.
        last_epoch: the number of steps counted.
    """

    counter: itertools.count[int] = itertools.count()

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self.base_lrs: list[Any] = [group["lr"] for group in optimizer.param_groups]
        self.last_epoch: float = 0
        self.order: int = next(Schedule.counter)
        self._scheduled = list(self.base_lrs)  # the rates that this schedule last wrote
        self.set_rates()

    @property
    def moves_rates_alone(self) -> bool:
        """Whether the schedule changes nothing but the learning rates that `lrs_at` gives.

        Captured steps get all learning rates in advance, and no other settings. A class outside of
        this package with its own `step` or `set_rates` may do anything, so this is False for it.
        """
        kinds = [kind for kind in type(self).__mro__ if not kind.__module__.startswith(OURS)]
        own = [vars(self), *map(vars, kinds)]
        return not any("step" in names or "set_rates" in names for names in own)

    def lr_at(self, base_lr: float, t: float) -> float:
        """The learning rate after t steps. Each schedule defines this."""
        raise TypeError(f"{type(self).__name__} has no lr_at method")

    def lrs_at(self, t: float) -> list[float]:
        """The learning rate of each group after t steps."""
        return [self.lr_at(base_lr, t) for base_lr in self.base_lrs]

    def step(self) -> None:
        """Count one step and set the learning rates."""
        self.last_epoch += 1
        self.set_rates()

    def state_dict(self) -> dict[str, Any]:
        """What is needed to resume, as plain numbers."""
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": list(self.base_lrs),
            "lrs": self.get_last_lr(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`.

        Raises:
            ValueError: the saved schedule had another number of groups.
        """
        self.require_groups(len(state["base_lrs"]))
        self.last_epoch = state["last_epoch"]
        self.base_lrs = list(state["base_lrs"])
        self._scheduled = self.lrs_at(self.last_epoch)
        self.set_lrs(state.get("lrs", self._scheduled))

    def set_rates(self) -> None:
        """Write the learning rates that differ from those that this schedule last wrote."""
        groups = self.optimizer.param_groups
        for group in groups[len(self.base_lrs) :]:  # added since by `add_param_group`
            self.base_lrs.append(group["lr"])
            self._scheduled.append(group["lr"])
        lrs = self.lrs_at(self.last_epoch)
        for group, lr, before in zip(groups, lrs, self._scheduled, strict=True):
            if lr != before:
                group["lr"] = lr
        self._scheduled = lrs


def one_for_each_group(
    optimizer: Optimizer, name: str, setting: str, value: float | Sequence[float]
) -> list[float]:
    """One value per group, from a setting that is one value for all groups or one for each.

    Raises:
        ValueError: there are not as many values as groups.
    """
    groups = len(optimizer.param_groups)
    values = list(value) if isinstance(value, Sequence) else [value] * groups
    if len(values) != groups:
        raise ValueError(f"{name}: {len(values)} values of {setting} for {groups} groups")
    return values
