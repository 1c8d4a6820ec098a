"""Sorting, searching and sets. Sorted values keep the gradients of the elements that they are."""

from __future__ import annotations

from typing import Any, NamedTuple

from minigrad.device import namespace_of
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_tensor, axes_of
from minigrad.functions.rearrange import ravel, take_along_axis
from minigrad.functions.shape import take
from minigrad.tensor import Tensor

__all__ = [
    "argsort",
    "nonzero",
    "searchsorted",
    "sort",
    "topk",
    "unique",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
]


class TopK(NamedTuple):
    """The largest (or smallest) elements and where they are."""

    values: Tensor
    indices: Tensor


class UniqueAll(NamedTuple):
    """Distinct values, where each is first, which each element has, and how often each occurs."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """Distinct values, and how often each occurs."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """Distinct values, and which of them each element has."""

    values: Tensor
    inverse_indices: Tensor


def argsort(
    x: Any, axis: int | None = -1, *, descending: bool = False, stable: bool = True
) -> Tensor:
    """The places of the elements along `axis` in ascending order; of the flattened if it is None.

    Equal elements keep their order, also when it is descending. NaN counts as the largest.
    """
    x = as_tensor(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = _axis("argsort", axis, x)
    xp, array = namespace_of(x.array), x.array
    if not descending:
        return Tensor.wrap(xp.argsort(array, axis=axis, kind="stable"))
    # Backwards before and after, so that equal elements keep their order.
    order = xp.argsort(xp.flip(array, axis), axis=axis, kind="stable")
    return Tensor.wrap(array.shape[axis] - 1 - xp.flip(order, axis))


def sort(x: Any, axis: int | None = -1, *, descending: bool = False, stable: bool = True) -> Tensor:
    """x in ascending order along `axis`, a new tensor; all of it flattened if axis is None."""
    x = as_tensor(x)
    if axis is None:
        x, axis = ravel(x), 0
    return take_along_axis(x, argsort(x, axis, descending=descending, stable=stable), axis)


def topk(x: Any, k: int, axis: int = -1, largest: bool = True) -> TopK:
    """The k largest elements along `axis`, the largest first, or the k smallest, and their places.

    Of equal elements the first comes first. NaN counts as the largest.

    Raises:
        ShapeError: there are fewer than k.
    """
    x = as_tensor(x)
    axis = _axis("topk", axis, x)
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"topk of shape {x.shape}: axis {axis} does not have {k} elements")
    order = argsort(x, axis, descending=largest)[(slice(None),) * axis + (slice(k),)]
    return TopK(take_along_axis(x, order, axis), order)


def searchsorted(x: Any, values: Any, side: str = "left", sorter: Any = None) -> Tensor:
    """Where to insert `values` into x, sorted and of one axis, so that it stays sorted.

    Args:
        side: "left" is before equal elements, "right" after them.
        sorter: the places of x's elements in order, if x itself is not sorted.
    """
    x = as_tensor(x)
    values = as_tensor(values, like=x)
    if x.ndim != 1:
        raise ShapeError(f"searchsorted looks in a tensor of one axis, not of shape {x.shape}")
    if side not in ("left", "right"):
        raise ValueError(f'searchsorted: side must be "left" or "right", not {side!r}')
    order = None if sorter is None else as_tensor(sorter, like=x).array
    xp = namespace_of(x.array)
    return Tensor.wrap(xp.asarray(xp.searchsorted(x.array, values.array, side, order)))


def nonzero(x: Any) -> tuple[Tensor, ...]:
    """The places of all elements that are not 0: a tensor for each axis.

    Raises:
        ShapeError: x has no axes.
    """
    x = as_tensor(x)
    if x.ndim == 0:
        raise ShapeError("nonzero: a number has no places; use x.reshape(1)")
    return tuple(Tensor.wrap(places) for places in namespace_of(x.array).nonzero(x.array))


def unique(
    x: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False
) -> Any:
    """The distinct values of x in ascending order; NaN once. With what else is asked for, a tuple.

    `unique_all` and its like are the standard's, to which each NaN is a value of its own.
    """
    found = _unique(x, equal_nan=True)
    wanted = (True, return_index, return_inverse, return_counts)
    parts = tuple(part for part, want in zip(found, wanted, strict=True) if want)
    return parts if len(parts) > 1 else parts[0]


def unique_all(x: Any) -> UniqueAll:
    """The distinct values in ascending order, and all that is known of them."""
    return _unique(x)


def unique_counts(x: Any) -> UniqueCounts:
    """The distinct values in ascending order, and how often each occurs."""
    found = _unique(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Any) -> UniqueInverse:
    """The distinct values in ascending order, and which of them each element has."""
    found = _unique(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: Any) -> Tensor:
    """The distinct values in ascending order."""
    return _unique(x).values


def _unique(x: Any, equal_nan: bool = False) -> UniqueAll:
    """A value keeps the gradient of the first element that has it."""
    x = as_tensor(x)
    xp = namespace_of(x.array)
    _, first, inverse, counts = xp.unique(
        x.array,
        return_index=True,
        return_inverse=True,
        return_counts=True,
        equal_nan=equal_nan,
    )
    return UniqueAll(
        take(ravel(x), first),
        Tensor.wrap(first),
        Tensor.wrap(inverse.reshape(x.shape)),
        Tensor.wrap(counts),
    )


def _axis(name: str, axis: int, x: Tensor) -> int:
    if x.ndim == 0:
        raise ShapeError(f"{name}: a number has no order; use x.reshape(1)")
    return axes_of(name, (axis,), x.ndim)[0]
