"""An exponential average of the weights, which often predicts better than the weights themselves.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class WeightAverage:
    """Averages the flat parameters of a model.

        a ← d·a + (1 - d)·w,    d = min(decay, (1 + t)/(10 + t)) after update t

    The second bound lets the average leave the random weights of the start quickly.

    Args:
        flat: the parameters (`FlatParameters`).
        decay: of the average, for example 0.999: it then looks back about 1,000 updates.

    Attributes:
        average: (N,) like `flat.array`.
    """

    def __init__(self, flat: Any, decay: float) -> None:
        self.flat, self.decay = flat, decay
        self.average = flat.array.copy()

    def update(self, step: int) -> None:
        """Take in the weights after update number `step` (from 1)."""
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
