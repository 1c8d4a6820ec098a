"""How far an update moves each parameter, by one launch and one copy to the host: changes.cu."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, one_dtype, real_of

SOURCE = Source("changes", "change_squares<{real}>")
THREADS = 256
LONGEST = 2**14  # elements that one block reads


class Changes:
    """Sums of the squared changes between two states of one flat array, for each of its parts.

    Args:
        bounds: where each part of the array begins, and where the last one ends; P + 1 numbers.
    """

    def __init__(self, bounds: Sequence[int]) -> None:
        stretches: list[tuple[int, int]] = []
        self._first = []  # index of each part's first stretch
        for start, stop in pairwise(bounds):
            self._first.append(len(stretches))
            cuts = [*range(start, stop, LONGEST), stop] if start < stop else [start, start]
            stretches += pairwise(cuts)
        self._stretches = cupy().asarray(np.array(stretches, np.int64))  # (S, 2)

    def squares(self, after: Any, before: Any) -> np.ndarray:
        """(P, 2) float64 on the host: Σ (after - before)² and Σ before² of each part.

        Args:
            after, before: (N,) C-contiguous, of one dtype that kernels compute in.
        """
        dtype = one_dtype("changes", after, before)
        found = cupy().empty(self._stretches.shape, np.float64)
        SOURCE.launch(
            f"change_squares<{real_of(dtype)}>",
            (len(found),),
            (THREADS,),
            *(after, before, self._stretches, found),
            dtype=dtype,
        )
        return np.add.reduceat(found.get(), self._first, axis=0)
