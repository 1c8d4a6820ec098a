"""An exponential average of the weights, which often predicts better than the last weights.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.state import Made, TrainingState


class WeightAverage(Hook):
    """Averages the flat parameters of a model; the average is what is validated and saved for use.

        a ← d·a + (1 - d)·w,    d = min(decay, (1 + t)/(10 + t)) after update t

    The second bound makes the average forget the random initial weights quickly.

    It comes before the hooks that save, since it is saved. A GPU that makes many steps at once
    updates the average itself, in this object's array, because no hook is called between two such
    steps.

    Args:
        flat: the parameters (`FlatParameters`).
        decay: of the average; 0.999, for example, averages over about 1,000 updates.
        kept_by_steps: whether the steps update it, so that only skipped ones are added here.

    Attributes:
        average: (N,) like `flat.array`.
        step: how many updates it certainly includes.
    """

    flat: Any
    decay: float
    kept_by_steps: bool

    def __init__(self, flat: Any, decay: float, kept_by_steps: bool = False) -> None:
        self.flat, self.decay, self.kept_by_steps = flat, decay, kept_by_steps
        self.average: Any = flat.array.copy()
        self.step: int = 0

    def on_start(self, state: TrainingState) -> None:
        self.step = state.step

    def on_step(self, state: TrainingState, made: Made) -> None:
        if not (self.kept_by_steps and made.results[-1].finite):
            self.update(state.step)
        self.step = state.step

    def update(self, step: int) -> None:
        """Include the weights after update number `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        self.average *= decay
        self.average += (1 - decay) * self.flat.array

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Context manager: the model has the average as its weights."""
        kept = self.flat.array.copy()
        self.flat.array[...] = self.average
        self.flat.changed()
        try:
            yield
        finally:
            self.flat.array[...] = kept
            self.flat.changed()
