"""What a step of an optimizer consists of: a rule for some arrays, which workers may share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from minigrad.device import device_of, namespace_of
from minigrad.dtypes import widened
from minigrad.ops.updates.rule import Rule
from minigrad.state import STATE

T = TypeVar("T")
Row = tuple[Any, ...]  # a parameter, its gradient and its state, of one shape
SLICE = 2**15  # elements that the textbook takes at a time, so that they stay in the cache


class Place(NamedTuple):
    """Where in an optimizer's flat memory an update works: which parameters of which section."""

    section: int
    members: Sequence[int]


class Update(NamedTuple):
    """A rule for one row of arrays, or if it is not element-wise for several of one shape.

    Attributes:
        rule, rows, settings: `rule.step(xp, *row, **settings)` is what shall happen.
        sign: -1 to climb along the gradient.
        place: where the arrays lie, if that is declared: by it another process finds them.
    """

    rule: type[Rule]
    rows: list[Row]
    settings: dict[str, Any]
    sign: int = 1
    place: Place | None = None

    def pieces(self, elements: int) -> list[slice]:
        """Slices for `apply` that together are the update: so many elements, or a row, each."""
        if not self.rule.elementwise:
            return [slice(row, row + 1) for row in range(len(self.rows))]
        size = self.rows[0][0].size
        return [slice(start, start + elements) for start in range(0, size, elements)]

    def apply(self, part: slice = slice(None), grad_scale: float = 1.0) -> None:
        """Update a slice of the flattened arrays (of the rows, if the rule needs whole ones).

        Gradients count `grad_scale` times, and are only read.
        """
        first, scale = self.rows[0][0], grad_scale * self.sign
        with device_of(first).in_use():
            if not self.rule.elementwise:
                self._stacked(self.rows[part], scale)
            elif all([a.flags.c_contiguous for a in self.rows[0]]):
                self._flat(tuple([a.reshape(-1)[part] for a in self.rows[0]]), scale)
            else:
                self._by_the_page(self.rows[0], scale)

    def _flat(self, row: Row, scale: float) -> None:
        p, g, *state = row
        kind = "cpu" if isinstance(p, np.ndarray) else "gpu"
        kernel = None if STATE.textbook else self.rule.kernels.get(kind)
        if kernel is not None:
            computed = widened(p)  # float16 as float32; others are themselves
            kernel(computed, widened(g), *state, grad_scale=scale, **self.settings)
            if computed is not p:
                p[...] = computed
            return
        step = SLICE if kind == "cpu" else max(p.size, 1)
        for start in range(0, p.size, step):
            self._by_the_page(tuple([a[start : start + step] for a in row]), scale)

    def _by_the_page(self, row: Row, scale: float) -> None:
        p, _, *state = row
        for array, new in zip((p, *state), self._new(row, scale), strict=True):
            array[...] = new

    def _stacked(self, rows: list[Row], scale: float) -> None:
        """All rows at once: on a GPU many small matrices take as long as one."""
        xp = namespace_of(rows[0][0])
        stacks = [
            xp.stack([widened(a) for a in column]) if len(rows) > 1 else column[0][None]
            for column in zip(*rows, strict=True)
        ]
        new = self._new(tuple(stacks), scale)
        for number, (p, _, *state) in enumerate(rows):
            for array, stack in zip((p, *state), new, strict=True):
                array[...] = stack[number]

    def _new(self, row: Row, scale: float) -> tuple[Any, ...]:
        """What the page makes of the parameter and its state."""
        p, g, *state = row
        g = widened(g)
        if scale != 1:
            g = g * scale
        new = self.rule.step(namespace_of(p), widened(p), g, *state, **self.settings)
        new = new if isinstance(new, tuple) else (new,)
        if len(new) != 1 + len(state):
            raise ValueError(
                f"the rule {self.rule.name!r} returned {len(new)} arrays; it has to return the "
                f"parameter and {len(state)} of its state"
            )
        return new


def together(rule: type[Rule], rows: list[Row]) -> list[list[Row]]:
    """The rows of each update: one, or all of a shape if the rule takes whole parameters."""
    if rule.elementwise:
        return [[row] for row in rows]
    return by_shape(rows, lambda row: row[0].shape)


def by_shape(items: Iterable[T], shape_of: Callable[[T], tuple[int, ...]]) -> list[list[T]]:
    """What has one shape is together, in the order in which it comes."""
    found: dict[tuple[int, ...], list[T]] = {}
    for item in items:
        found.setdefault(shape_of(item), []).append(item)
    return list(found.values())


def apply_all(updates: Iterable[Update], grad_scale: float) -> None:
    """Do the updates one after the other, in this process."""
    for update in updates:
        update.apply(grad_scale=grad_scale)
