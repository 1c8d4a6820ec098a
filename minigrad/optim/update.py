"""The updates of an optimizer step: each applies a rule to some arrays. Workers may divide them."""

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
SLICE = 2**15  # elements that the textbook updates at a time, so that they stay in the cache


class Place(NamedTuple):
    """What an update changes in an optimizer's flat memory: which parameters of which section."""

    section: int
    members: Sequence[int]


class Orders(NamedTuple):
    """The numbers that a captured step reads from the GPU, as float64 arrays without axes.

    Because the host does not pass them, each replay of the graph makes the next step.

    Attributes:
        xp: the array library for rules: CuPy with a `matmul` that can be captured.
        made: 0 if the step must change nothing.
        step: the number of this step, from 1.
        rates: each group's learning rate.
    """

    xp: Any
    made: Any
    step: Any
    rates: Sequence[Any]


class Update(NamedTuple):
    """A rule and its arrays: one row, or several of one shape if the rule is not element-wise.

    Attributes:
        rule, rows, settings: `rule.step(xp, *row, **settings)` is called for each row.
        sign: -1 to move along the gradient instead of against it.
        place: where the arrays lie in flat memory, or None. Another process finds them by it.
        orders: the numbers of a captured step, or None. With them, some settings are arrays.
    """

    rule: type[Rule]
    rows: list[Row]
    settings: dict[str, Any]
    sign: int = 1
    place: Place | None = None
    orders: Orders | None = None

    def pieces(self, elements: int) -> list[slice]:
        """Slices for `apply` that together make the update, of `elements` elements or one row."""
        if not self.rule.elementwise:
            return [slice(row, row + 1) for row in range(len(self.rows))]
        size = self.rows[0][0].size
        return [slice(start, start + elements) for start in range(0, size, elements)]

    def apply(self, part: slice = slice(None), grad_scale: Any = 1.0) -> None:
        """Update a slice of the flattened arrays (of the rows, if the rule needs whole arrays).

        Gradients are multiplied by `grad_scale`, but not changed.
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
            computed = widened(p)  # float16 as float32; other arrays unchanged
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
        """Update all rows at once, because on a GPU many small matrices take as long as one."""
        new = self._new(tuple([_stack(column) for column in zip(*rows, strict=True)]), scale)
        for number, (p, _, *state) in enumerate(rows):
            for array, stack in zip((p, *state), new, strict=True):
                array[...] = stack[number]

    def _new(self, row: Row, scale: Any) -> tuple[Any, ...]:
        """The new parameter and state, computed by the page."""
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
        new = () if new is None else new  # the rule has no `return`
        new = tuple(new) if isinstance(new, (tuple, list)) else (new,)
        if any(array is None for array in new):
            raise ValueError(f"the rule {self.rule.name!r} returned None in the place of an array")
        if len(new) != 1 + len(state):
            raise ValueError(
                f"the rule {self.rule.name!r} returned {len(new)} arrays; it has to return the "
                f"parameter and {len(state)} of its state"
            )
        if self.orders is not None:  # keep the old values if no update is made
            made = self.orders.made.astype(bool)
            new = tuple([xp.where(made, a, b) for a, b in zip(new, before, strict=True)])
        return new


def _stack(arrays: Sequence[Any]) -> Any:
    """Stack arrays of one shape by copying each, because CuPy's `stack` cannot be captured."""
    first = widened(arrays[0])
    if len(arrays) == 1:
        return first[None]
    stack = namespace_of(first).empty((len(arrays), *first.shape), first.dtype)
    for place, array in zip(stack, arrays, strict=True):
        place[...] = array
    return stack


def as_wide_as(p: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with arrays converted to the dtype of `p`, so that results keep that dtype.

    The step count stays float64, because powers with large exponents need all digits.
    """
    array = type(p)
    return {
        name: value.astype(p.dtype) if isinstance(value, array) and name != "step" else value
        for name, value in settings.items()
    }


def together(rule: type[Rule], rows: list[Row]) -> list[list[Row]]:
    """The rows of each update: one row, or all rows of a shape if the rule is not element-wise."""
    if rule.elementwise:
        return [[row] for row in rows]
    return by_shape(rows, lambda row: row[0].shape)


def by_shape(items: Iterable[T], shape_of: Callable[[T], tuple[int, ...]]) -> list[list[T]]:
    """Group items by shape, in the order in which they come."""
    found: dict[tuple[int, ...], list[T]] = {}
    for item in items:
        found.setdefault(shape_of(item), []).append(item)
    return list(found.values())


def apply_all(updates: Iterable[Update], grad_scale: Any) -> None:
    """Make the updates one after the other, in this process."""
    for update in updates:
        update.apply(grad_scale=grad_scale)
