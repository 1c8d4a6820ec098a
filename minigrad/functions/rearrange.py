"""Functions that repeat, flip, select and pad elements, made of those in `shape`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.errors import ShapeError
from minigrad.functions.convert import as_tensor, axes_of
from minigrad.functions.elementwise import where
from minigrad.functions.shape import (
    broadcast_arrays,
    broadcast_to,
    concatenate,
    getitem,
    moveaxis,
    reshape,
    take,
)
from minigrad.op import Axis
from minigrad.tensor import Tensor

__all__ = [
    "diagonal",
    "diff",
    "flatten",
    "flip",
    "meshgrid",
    "ravel",
    "repeat",
    "roll",
    "take_along_axis",
    "tile",
    "trace",
    "tril",
    "triu",
]


def ravel(x: Any) -> Tensor:
    """All elements along one axis, in memory that may be shared."""
    return reshape(x, -1)


def flatten(x: Any, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """The axes from `start_axis` to `end_axis` as one, in memory that may be shared."""
    x = as_tensor(x)
    if x.ndim == 0:
        return reshape(x, 1)
    start, end = (axes_of("flatten", (a,), x.ndim)[0] for a in (start_axis, end_axis))
    if start > end:
        raise ShapeError(f"flatten of shape {x.shape}: axis {start_axis} is after {end_axis}")
    joined = math.prod(x.shape[start : end + 1])
    return reshape(x, (*x.shape[:start], joined, *x.shape[end + 1 :]))


def flip(x: Any, axis: Axis = None) -> Tensor:
    """x backwards along `axis`, along all axes if it is None."""
    x = as_tensor(x)
    axes = axes_of("flip", axis, x.ndim)
    return x[tuple(slice(None, None, -1 if a in axes else None) for a in range(x.ndim))]


def roll(x: Any, shift: int | Sequence[int], axis: Axis = None) -> Tensor:
    """x moved on by `shift` places along `axis`; what leaves at the end comes in at the front.

    Without an axis the elements are moved as if they were flat.
    """
    x = as_tensor(x)
    if axis is None:
        return reshape(roll(ravel(x), _one(shift), 0), x.shape)
    axes = (axis,) if hasattr(axis, "__index__") else tuple(axis)
    shifts = (shift,) * len(axes) if hasattr(shift, "__index__") else tuple(shift)
    if len(shifts) != len(axes):
        raise ShapeError(f"roll: {len(shifts)} shifts for {len(axes)} axes")
    for steps, a in zip(shifts, axes, strict=True):
        (a,) = axes_of("roll", (a,), x.ndim)
        cut = x.shape[a] - steps % max(x.shape[a], 1)
        before = (slice(None),) * a
        x = concatenate([x[(*before, slice(cut, None))], x[(*before, slice(cut))]], a)
    return x


def _one(shift: Any) -> int:
    return shift if hasattr(shift, "__index__") else sum(shift)


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Tensor:
    """Each element `repeats` times: a number, or one for each place along `axis`.

    Without an axis the elements are repeated as if they were flat.
    """
    x = as_tensor(x)
    if axis is None:
        x, axis = ravel(x), 0
    (axis,) = axes_of("repeat", (axis,), x.ndim)
    times = repeats.numpy() if isinstance(repeats, Tensor) else np.asarray(repeats)
    try:
        index = np.repeat(np.arange(x.shape[axis]), times)
    except ValueError as error:
        raise ShapeError(f"repeat of shape {x.shape} along axis {axis}: {error}") from error
    return take(x, x.device.asarray(index), axis)


def tile(x: Any, repetitions: int | Sequence[int]) -> Tensor:
    """x laid side by side so many times along each axis; as in NumPy the last number is the last
    axis's.
    """
    x = as_tensor(x)
    times = (repetitions,) if hasattr(repetitions, "__index__") else tuple(repetitions)
    ndim = max(x.ndim, len(times))
    times = (1,) * (ndim - len(times)) + times
    shape = (1,) * (ndim - x.ndim) + x.shape
    pairs = [n for one in zip((1,) * ndim, shape, strict=True) for n in one]
    stretched = [n for one in zip(times, shape, strict=True) for n in one]
    whole = [n * t for n, t in zip(shape, times, strict=True)]
    return reshape(broadcast_to(reshape(x, pairs), stretched), whole)


def take_along_axis(x: Any, indices: Any, axis: int = -1) -> Tensor:
    """x at `indices` along `axis`, with its own place along every other axis."""
    x = as_tensor(x)
    indices = as_tensor(indices, like=x)
    (axis,) = axes_of("take_along_axis", (axis,), x.ndim)
    if indices.ndim != x.ndim:
        raise ShapeError(f"take_along_axis: indices of shape {indices.shape} for {x.shape}")
    xp = x.device.xp
    places = [
        indices if a == axis else xp.arange(n).reshape((-1,) + (1,) * (x.ndim - a - 1))
        for a, n in enumerate(x.shape)
    ]
    return getitem(x, tuple(places))


def meshgrid(*tensors: Any, indexing: str = "xy") -> list[Tensor]:
    """Coordinates of a grid: the i-th tensor of (N,) varies along axis i alone.

    With "xy", as for pictures, the first two axes are exchanged.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f'meshgrid: indexing must be "xy" or "ij", not {indexing!r}')
    order = list(range(len(tensors)))
    if indexing == "xy":
        order[:2] = order[:2][::-1]
    parts = [as_tensor(x) for x in tensors]
    for x in parts:
        if x.ndim > 1:
            raise ShapeError(f"meshgrid takes tensors of one axis, not of shape {x.shape}")
    ndim = len(parts)
    return broadcast_arrays(
        *(
            reshape(x, [-1 if a == place else 1 for a in range(ndim)])
            for x, place in zip(parts, order, strict=True)
        )
    )


def tril(x: Any, k: int = 0) -> Tensor:
    """The lower triangle of the last two axes, up to diagonal k; 0 above it."""
    return _triangle("tril", x, k, lambda mask: mask)


def triu(x: Any, k: int = 0) -> Tensor:
    """The upper triangle of the last two axes, from diagonal k on; 0 below it."""
    return _triangle("triu", x, k - 1, np.logical_not)


def _triangle(name: str, x: Any, k: int, side: Any) -> Tensor:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"{name} needs a matrix, not shape {x.shape}")
    mask = side(np.tri(x.shape[-2], x.shape[-1], k, dtype=bool))
    return where(Tensor.wrap(x.device.asarray(mask)), x, False if x.dtype.kind == "b" else 0)


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The elements with equal places on two axes, or `offset` further on the second: (..., N)."""
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"diagonal needs a matrix, not shape {x.shape}")
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    n, m = x.shape[-2:]
    length = max(0, min(n + min(offset, 0), m - max(offset, 0)))
    places = x.device.xp.arange(length)
    return x[..., places + max(0, -offset), places + max(0, offset)]


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, *, dtype: Any = None) -> Tensor:
    """The sum of a diagonal."""
    return diagonal(x, offset, axis1, axis2).sum(-1, dtype=dtype)


def diff(x: Any, n: int = 1, axis: int = -1, *, prepend: Any = None, append: Any = None) -> Tensor:
    """Differences of neighbours along `axis`, n times; True where booleans differ."""
    x = as_tensor(x)
    (axis,) = axes_of("diff", (axis,), x.ndim)
    if n < 0:
        raise ValueError(f"diff: n must not be negative, but is {n}")
    ends = []
    for end in (prepend, append):
        end = None if end is None else as_tensor(end, like=x)
        if end is not None and end.ndim == 0:
            end = broadcast_to(end, [1 if a == axis else size for a, size in enumerate(x.shape)])
        ends.append(end)
    parts = [part for part in (ends[0], x, ends[1]) if part is not None]
    x = concatenate(parts, axis) if len(parts) > 1 else x
    before = (slice(None),) * axis
    for _ in range(n):
        later, earlier = x[(*before, slice(1, None))], x[(*before, slice(None, -1))]
        x = later != earlier if x.dtype.kind == "b" else later - earlier
    return x
