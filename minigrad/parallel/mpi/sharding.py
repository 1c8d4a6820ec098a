"""An optimizer whose averages are divided among ranks.

The flat memory is divided into one part a rank. A step has three parts: the gradients are added up
so that each rank gets its part of the sum; it updates its part of the parameters; these are
collected. The averages of other parts are never written, and the system gives memory to a page only
when something is written there.

Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020,
stage 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from minigrad.optim.flat import FlatParameters
from minigrad.optim.optimizer import Optimizer
from minigrad.optim.update import Update
from minigrad.parallel.cpu import SLICE, Workers
from minigrad.parallel.memory import forget
from minigrad.parallel.mpi.ranks import Ranks


class Sharding:
    """This rank's part of the parameters, gradients and averages.

    Args:
        engine: of this rank, with the optimizer's averages in flat memory of shared arrays.
        optimizer: the one whose averages are divided.
        ranks: all of them.

    Attributes:
        bounds: where each rank's part begins, and the last ends.
        part: this rank's.
    """

    engine: Workers
    optimizer: Optimizer
    ranks: Ranks

    def __init__(self, engine: Workers, optimizer: Optimizer, ranks: Ranks) -> None:
        self.engine, self.optimizer, self.ranks = engine, optimizer, ranks
        self.bounds: list[int] = cut(engine.flat, optimizer, ranks.size)
        self.part: slice = slice(self.bounds[ranks.rank], self.bounds[ranks.rank + 1])
        self._counts = [b - a for a, b in pairwise(self.bounds)]
        self._share = np.empty(self._counts[ranks.rank], engine.flat.array.dtype)
        engine.pieces = self.pieces

    def pieces(self, update: Update) -> list[slice]:
        """The pieces of an update, as `Update.pieces`, that lie in this rank's part."""
        assert update.place is not None
        section, members = self.optimizer.sections[update.place.section], update.place.members
        start, stop = self.part.start, self.part.stop
        if not update.rule.elementwise:
            rows = [n for n, m in enumerate(members) if start <= section.place_of(m)[0] < stop]
            return [slice(row, row + 1) for row in rows]
        begin, end = section.place_of(members[0])[0], section.place_of(members[-1])[1]
        first, last = max(start, begin) - begin, min(stop, end) - begin
        return [slice(at, min(at + SLICE, last)) for at in range(first, last, SLICE)]

    def scatter_gradients(self) -> float:
        """Add up all ranks' gradients in this rank's part; returns the part's sum of squares."""
        grad = self.engine.flat.grad
        self.ranks.scatter_sum(grad, self._share, self._counts)
        grad[self.part] = self._share
        parts = [self._share[at : at + SLICE] for at in range(0, len(self._share), SLICE)]
        return float(np.add.reduce([float(np.dot(part, part)) for part in parts]))

    def update(self, optimizer: Optimizer, max_norm: float) -> None:
        """Each rank updates its part; then all parts are collected on all ranks."""
        flat = self.engine.flat
        if optimizer is not self.optimizer:  # another one, whose averages are whole
            self.ranks.collect(flat.grad, self._counts)
            self.engine.update(optimizer, max_norm)
            return
        strangers = [n for n, at_home in enumerate(flat.at_home()) if not at_home]
        if strangers:
            raise RuntimeError(
                f"parameter {strangers[0]} or its gradient has been given another array: an "
                "optimizer that is shared out needs them where the engine has laid them"
            )
        self.engine.update(optimizer, max_norm)
        self.ranks.collect(flat.array, self._counts)
        flat.changed()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Context manager: rank 0 has all averages; those of other parts are freed afterwards."""
        for array, counts in self._averages():
            self.ranks.collect_at_first(array, counts)
        try:
            yield
        finally:
            self.forget()

    def forget(self) -> None:
        """Free the memory of the other parts' averages."""
        for array, counts in self._averages():
            start = sum(counts[: self.ranks.rank])
            forget(array, slice(0, start))
            forget(array, slice(start + counts[self.ranks.rank], len(array)))

    def _averages(self) -> Iterator[tuple[Any, list[int]]]:
        """Each flat average, and how many of its elements each rank has."""
        for section in self.optimizer.sections:
            begin, end = section.part.start, section.part.stop
            inside = [min(max(bound, begin), end) for bound in self.bounds]
            for array in section.state.values():
                yield array, [b - a for a, b in pairwise(inside)]


def cut(flat: FlatParameters, optimizer: Optimizer, size: int) -> list[int]:
    """Where the parts of so many ranks begin, and the last ends: equal up to one element.

    A parameter whose rule needs it whole is not divided: the part ends at its nearest end.
    """
    total = flat.bounds[-1]
    whole = [
        section.place_of(number)
        for section in optimizer.sections
        if not section.rule.elementwise
        for number in range(len(section.group["params"]))
    ]
    bounds = [total * rank // size for rank in range(size + 1)]
    for place, bound in enumerate(bounds):
        for start, stop in whole:
            if start < bound < stop:
                bounds[place] = start if bound - start < stop - bound else stop
    return bounds
