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


class Orders(NamedTuple):
    """What a step on a GPU is told by arrays that lie there, as float64 without axes.

    So the host need not know what the step is, and a graph of it makes another one each time.

    Attributes:
        xp: what rules compute with: CuPy, with products that can be captured.
        made: 0 if the step shall change nothing.
        step: how many steps there will have been with this one.
        rates: each group's learning rate.
    """

    xp: Any
    made: Any
    step: Any
    rates: Sequence[Any]


class Update(NamedTuple):
    """A rule for one row of arrays, or if it is not element-wise for several of one shape.

    Attributes:
        rule, rows, settings: `rule.step(xp, *row, **settings)` is what shall happen.
        sign: -1 to climb along the gradient.
        place: where the arrays lie, if that is declared: by it another process finds them.
        orders: what tells the step, if it is not the host. Then settings hold arrays as well.
    """

    rule: type[Rule]
    rows: list[Row]
    settings: dict[str, Any]
    sign: int = 1
    place: Place | None = None
    orders: Orders | None = None

    def pieces(self, elements: int) -> list[slice]:
        """Slices for `apply` that together are the update: so many elements, or a row, each."""
        if not self.rule.elementwise:
            return [slice(row, row + 1) for row in range(len(self.rows))]
        size = self.rows[0][0].size
        return [slice(start, start + elements) for start in range(0, size, elements)]

    def apply(self, part: slice = slice(None), grad_scale: Any = 1.0) -> None:
        """Update a slice of the flattened arrays (of the rows, if the rule needs whole ones).

        Gradients count `grad_scale` times, and are only read.
        """
        first, scale = self.rows[0][0], grad_scale if self.sign == 1 else -grad_scale
        with device_of(first).in_use():
            if not self.rule.elementwise:
                self._stacked(self.rows[part], scale)
            elif all([a.flags.c_contiguous for a in self.rows[0]]):
                self._flat(tuple([a.reshape(-1)[part] for a in self.rows[0]]), scale)
            else:
                self._by_the_page(self.rows[0], scale)

    def _flat(self, row: Row, scale: Any) -> None:
        p, g, *state = row
        kind, told = "cpu" if isinstance(p, np.ndarray) else "gpu", {}
        if self.orders is not None:
            kind, told = "captured", {"made": self.orders.made}
        kernel = None if STATE.textbook else self.rule.kernels.get(kind)
        if kernel is not None:
            computed = widened(p)  # float16 as float32; others are themselves
            kernel(computed, widened(g), *state, grad_scale=scale, **told, **self.settings)
            if computed is not p:
                p[...] = computed
            return
        step = SLICE if kind == "cpu" else max(p.size, 1)
        for start in range(0, p.size, step):
            self._by_the_page(tuple([a[start : start + step] for a in row]), scale)

    def _by_the_page(self, row: Row, scale: Any) -> None:
        p, _, *state = row
        for array, new in zip((p, *state), self._new(row, scale), strict=True):
            array[...] = new

    def _stacked(self, rows: list[Row], scale: Any) -> None:
        """All rows at once: on a GPU many small matrices take as long as one."""
        new = self._new(tuple([_stack(column) for column in zip(*rows, strict=True)]), scale)
        for number, (p, _, *state) in enumerate(rows):
            for array, stack in zip((p, *state), new, strict=True):
                array[...] = stack[number]

    def _new(self, row: Row, scale: Any) -> tuple[Any, ...]:
        """What the page makes of the parameter and its state."""
        p, g, *state = row
        p, g, settings, xp = widened(p), widened(g), self.settings, namespace_of(p)
        before = (p, *state)
        if self.orders is not None:
            xp = self.orders.xp
            scale, settings = scale.astype(p.dtype), as_wide_as(p, settings)
            g = g * scale
            p, *state = [array.copy() for array in (p, *state)]  # a rule may work in place
        elif scale != 1:
            g = g * scale
        new = self.rule.step(xp, p, g, *state, **settings)
        new = () if new is None else new  # a `return` was forgotten
        new = tuple(new) if isinstance(new, (tuple, list)) else (new,)
        if any(array is None for array in new):
            raise ValueError(f"the rule {self.rule.name!r} returned None in the place of an array")
        if len(new) != 1 + len(state):
            raise ValueError(
                f"the rule {self.rule.name!r} returned {len(new)} arrays; it has to return the "
                f"parameter and {len(state)} of its state"
            )
        if self.orders is not None:  # or else what there was
            made = self.orders.made.astype(bool)
            new = tuple([xp.where(made, a, b) for a, b in zip(new, before, strict=True)])
        return new


def _stack(arrays: Sequence[Any]) -> Any:
    """Arrays of one shape, each of which is copied there: CuPy's `stack` cannot be captured."""
    first = widened(arrays[0])
    if len(arrays) == 1:
        return first[None]
    stack = namespace_of(first).empty((len(arrays), *first.shape), first.dtype)
    for place, array in zip(stack, arrays, strict=True):
        place[...] = array
    return stack


def as_wide_as(p: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, arrays of which have the dtype of `p`, so that they widen no result. The step
    count does not: powers with large exponents need all digits."""
    array = type(p)
    return {
        name: value.astype(p.dtype) if isinstance(value, array) and name != "step" else value
        for name, value in settings.items()
    }


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


def apply_all(updates: Iterable[Update], grad_scale: Any) -> None:
    """Do the updates one after the other, in this process."""
    for update in updates:
        update.apply(grad_scale=grad_scale)
