"""Learning rates that fall in steps, exponentially, along a line, or by a function of your own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from minigrad.optim.optimizer import Optimizer
from minigrad.optim.schedules.base import Schedule


class ConstantLR(Schedule):
    """lr·factor for the first `total_iters` steps, then lr; by default lr throughout."""

    factor: float
    total_iters: int

    def __init__(self, optimizer: Optimizer, factor: float = 1.0, total_iters: int = 0) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer)

    def lr_at(self, base_lr: float, t: float) -> float:
        return base_lr * self.factor if t < self.total_iters else base_lr


class StepLR(Schedule):
    """lr·gamma^k from step k·step_size on."""

    step_size: int
    gamma: float

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1, it is {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def lr_at(self, base_lr: float, t: float) -> float:
        return base_lr * self.gamma ** (t // self.step_size)


class MultiStepLR(Schedule):
    """lr·gamma^k, where k is the number of milestones at or before the step.

    Args:
        milestones: step numbers in ascending order; one that is listed twice counts twice.
        gamma: the factor at each milestone.

    Raises:
        ValueError: the milestones are not in ascending order.
    """

    milestones: list[int]
    gamma: float

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        if list(milestones) != sorted(milestones):
            raise ValueError(f"MultiStepLR: milestones must ascend, they are {list(milestones)}")
        self.milestones, self.gamma = list(milestones), gamma
        super().__init__(optimizer)

    def lr_at(self, base_lr: float, t: float) -> float:
        return base_lr * self.gamma ** bisect_right(self.milestones, t)


class ExponentialLR(Schedule):
    """lr·gamma^t after t steps."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, base_lr: float, t: float) -> float:
        return base_lr * self.gamma**t


class LinearLR(Schedule):
    """lr times a factor that goes along a line from start_factor to end_factor.

    Args:
        start_factor: the factor at the start, in (0, 1].
        end_factor: the factor from step `total_iters` on, in [0, 1].
        total_iters: the number of steps until `end_factor` is reached.

    Raises:
        ValueError: a factor or `total_iters` is out of range.
    """

    start_factor: float
    end_factor: float

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"LinearLR: start_factor must be in (0, 1], it is {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"LinearLR: end_factor must be in [0, 1], it is {end_factor}")
        if total_iters < 1:
            raise ValueError(f"LinearLR: total_iters must be at least 1, it is {total_iters}")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer)

    def lr_at(self, base_lr: float, t: float) -> float:
        progress = min(1.0, t / self.total_iters)
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * progress)


class LambdaLR(Schedule):
    """lr·f(t) after t steps, where f is your own function.

    The functions are not part of the saved state: make the schedule with the same ones to resume.

    Args:
        lr_lambda: a function of the step number, or one for each group.

    Raises:
        ValueError: there are not as many functions as groups.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[float], float] | Sequence[Callable[[float], float]],
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas: list[Callable[[float], float]] = (
            [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        )
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"LambdaLR: {len(self.lr_lambdas)} functions for {groups} groups")
        super().__init__(optimizer)

    def lrs_at(self, t: float) -> list[float]:
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base_lr * factor(t) for base_lr, factor in pairs]
