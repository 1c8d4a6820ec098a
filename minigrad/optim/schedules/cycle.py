"""One cycle: up, down, and far down (Smith and Topin, "Super-Convergence", arXiv:1708.07120)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from minigrad.optim.optimizer import Optimizer
from minigrad.optim.schedules.base import Schedule, one_for_each_group
from minigrad.optim.schedules.cosine import along_cosine


class OneCycleLR(Schedule):
    """From max_lr/div_factor up to max_lr, then down to max_lr/(div_factor·final_div_factor).

    The momentum moves in the opposite direction: from max_momentum to base_momentum and back.

    Args:
        max_lr: the peak, one for all groups or one for each.
        total_steps: the length of the cycle; alternatively give `epochs` and `steps_per_epoch`.
        pct_start: the share of steps in which the rate goes up.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: whether "momentum" (or the first of "betas") of the groups changes too.
        base_momentum, max_momentum: the limits of the momentum.
        three_phase: go down to the start as fast as up, then to the final rate in the other steps.

    Raises:
        ValueError: a setting is out of range, the optimizer has no momentum to move, or more steps
            are taken than the cycle has.
    """

    max_lrs: list[float]
    total_steps: int
    div_factor: float
    final_div_factor: float
    linear: bool
    three_phase: bool

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if total_steps < 1:
            raise ValueError(f"OneCycleLR: total_steps must be at least 1, it is {total_steps}")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start must be in [0, 1], it is {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f'OneCycleLR: anneal_strategy must be "cos" or "linear", not {anneal_strategy!r}'
            )
        peaks = one_for_each_group(optimizer, "OneCycleLR", "max_lr", max_lr)
        groups = optimizer.param_groups
        if cycle_momentum and not all("momentum" in g or "betas" in g for g in groups):
            raise ValueError(
                f"OneCycleLR: {type(optimizer).__name__} has no momentum to cycle; pass "
                "cycle_momentum=False"
            )
        self.max_lrs, self.total_steps = peaks, total_steps
        self.momenta: tuple[float, float] | None = (
            (max_momentum, base_momentum) if cycle_momentum else None
        )
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        self.linear, self.three_phase = anneal_strategy == "linear", three_phase
        peak = pct_start * total_steps - 1
        self.ends: list[Any] = (
            [peak, 2 * peak, total_steps - 1] if three_phase else [peak, total_steps - 1]
        )
        super().__init__(optimizer)

    @property
    def moves_rates_alone(self) -> bool:
        return self.momenta is None and super().moves_rates_alone

    def lrs_at(self, t: float) -> list[float]:
        starts = [peak / self.div_factor for peak in self.max_lrs]
        return [
            self._between(t, start, peak, start, start / self.final_div_factor)
            for start, peak in zip(starts, self.max_lrs, strict=True)
        ]

    def _between(self, t: float, start: float, peak: float, back: float, end: float) -> float:
        """The value after t steps on the way from `start` to `peak`, then `back`, then `end`."""
        values = [start, peak, back, end] if self.three_phase else [start, peak, end]
        phase = bisect_left(self.ends[:-1], t)
        low, high, phase_end = values[phase], values[phase + 1], self.ends[phase]
        begin = self.ends[phase - 1] if phase else 0.0
        progress = (t - begin) / (phase_end - begin) if phase_end != begin else 1.0
        return low + (high - low) * progress if self.linear else along_cosine(low, high, progress)

    def set_rates(self) -> None:
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"OneCycleLR: step {self.last_epoch:g} of a cycle of {self.total_steps} steps; "
                "make the schedule with more total_steps"
            )
        super().set_rates()
        if self.momenta is None:
            return
        high, low = self.momenta
        momentum = self._between(self.last_epoch, high, low, high, high)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.set_rates()  # sets the momentum too
