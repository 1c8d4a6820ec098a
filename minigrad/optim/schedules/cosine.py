"""Learning rates along a cosine, once or with restarts, and schedules after a warm-up."""

from __future__ import annotations

from math import cos, floor, isfinite, log, pi

from minigrad.optim.optimizer import Optimizer
from minigrad.optim.schedules.base import Schedule


class CosineAnnealingLR(Schedule):
    """From lr along half a cosine to eta_min after T_max steps, and back if there are more steps.

    Loshchilov and Hutter, arXiv:1608.03983, without restarts.
    """

    T_max: int
    eta_min: float

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        if T_max < 1:
            raise ValueError(f"CosineAnnealingLR: T_max must be at least 1, it is {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def lr_at(self, base_lr: float, t: float) -> float:
        return along_cosine(base_lr, self.eta_min, t / self.T_max)


class CosineAnnealingWarmRestarts(Schedule):
    """A cosine from lr to eta_min over T_0 steps, then over T_0·T_mult, then T_0·T_mult², ...

    Loshchilov and Hutter, "SGDR", arXiv:1608.03983.
    """

    last_epoch: float
    T_mult: int
    eta_min: float

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0
    ) -> None:
        if T_0 < 1 or T_mult < 1:
            raise ValueError(
                f"CosineAnnealingWarmRestarts: T_0 and T_mult must be at least 1, they are {T_0} "
                f"and {T_mult}"
            )
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer)

    def step(self, epoch: float | None = None) -> None:
        """Count one step, or go to `epoch`, which may be fractional."""
        if epoch is not None and not (isfinite(epoch) and epoch >= 0):
            raise ValueError(f"epoch must be a number from 0 on, not {epoch}")
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self.set_rates()

    def lr_at(self, base_lr: float, t: float) -> float:
        if self.T_mult == 1:
            return along_cosine(base_lr, self.eta_min, (t % self.T_0) / self.T_0)
        # Together the first n periods take T_0·(T_mult^n - 1)/(T_mult - 1) steps.
        n = floor(log(t / self.T_0 * (self.T_mult - 1) + 1, self.T_mult) + 1e-12)
        length = self.T_0 * self.T_mult**n
        start = self.T_0 * (self.T_mult**n - 1) / (self.T_mult - 1)
        return along_cosine(base_lr, self.eta_min, (t - start) / length)


class _Warmup(Schedule):
    """Linear from 0 to lr over warmup_steps, then down to eta_min at total_steps.

    Step number t (from 0) of the warm-up uses lr·(t + 1)/warmup_steps, so no step has a rate of 0.
    """

    warmup_steps: int
    total_steps: int
    eta_min: float

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, total_steps: int, eta_min: float = 0.0
    ) -> None:
        if not 0 <= warmup_steps <= total_steps or total_steps < 1:
            raise ValueError(
                f"{type(self).__name__}: needs 0 <= warmup_steps <= total_steps, not "
                f"{warmup_steps} and {total_steps}"
            )
        self.warmup_steps, self.total_steps, self.eta_min = warmup_steps, total_steps, eta_min
        super().__init__(optimizer)

    def lr_at(self, base_lr: float, t: float) -> float:
        if t < self.warmup_steps:
            return base_lr * (t + 1) / self.warmup_steps
        span = max(1, self.total_steps - self.warmup_steps)
        return self.lr_after(base_lr, min(1.0, (t - self.warmup_steps) / span))

    def lr_after(self, base_lr: float, progress: float) -> float:
        """The learning rate after the warm-up, at a progress from 0 to 1. Subclasses define it."""
        raise TypeError(f"{type(self).__name__} has no lr_after method")


class WarmupCosineLR(_Warmup):
    """Linear from 0 to lr over warmup_steps, then along half a cosine to eta_min at total_steps."""

    def lr_after(self, base_lr: float, progress: float) -> float:
        return along_cosine(base_lr, self.eta_min, progress)


class WarmupConstantLR(_Warmup):
    """Linear from 0 to lr over warmup_steps, then lr; eta_min has no effect."""

    def lr_after(self, base_lr: float, progress: float) -> float:
        return base_lr


class WarmupLinearLR(_Warmup):
    """Linear from 0 to lr over warmup_steps, then along a straight line to eta_min at total_steps.

    Bergsma et al., "Straight to Zero", arXiv:2502.15938, find it better than a cosine.

    Args:
        cooldown: the line takes this share of the steps after the warm-up, at the end; until then
            the rate is lr. Hägele et al., arXiv:2405.18392, compare such schedules with a cosine.

    Raises:
        ValueError: `cooldown` is not in (0, 1], or the numbers of steps do not fit.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int,
        eta_min: float = 0.0,
        cooldown: float = 1.0,
    ) -> None:
        if not 0 < cooldown <= 1:
            raise ValueError(f"WarmupLinearLR: cooldown must be in (0, 1], it is {cooldown}")
        self.cooldown = cooldown
        super().__init__(optimizer, warmup_steps, total_steps, eta_min)

    def lr_after(self, base_lr: float, progress: float) -> float:
        left = min(1.0, (1 - progress) / self.cooldown)
        return self.eta_min + (base_lr - self.eta_min) * left


def along_cosine(high: float, low: float, progress: float) -> float:
    """`high` at progress 0, `low` at 1, along half a cosine."""
    return low + (high - low) * (1 + cos(pi * progress)) / 2
