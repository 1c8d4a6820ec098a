"""Sums of floats whose rounding does not grow with their length.

NumPy adds along the last axis of memory in pairs of halves, so that n terms cost about log₂ n
roundings. Along any other axis it adds one row after another: the sum of 20 million ones by rows
is 16.8 million in float32, where the next number after 2²⁴ is 2²⁴ + 2. Here rows are added in
blocks of `BLOCK`, and the sums of the blocks likewise (Higham, "The accuracy of floating point
summation", SIAM Journal on Scientific Computing 14, 1993). It takes no longer: narrow rows are
first joined to wider ones, which NumPy adds faster.
"""

from collections.abc import Iterable
from math import inf, prod

import numpy as np

from minigrad.dtypes import widened
from minigrad.op import Array, Axis, Shape, Xp

BLOCK = 128  # rows that are added one by one
WIDTH = 2048  # elements: narrower rows are joined


def sum_of(xp: Xp, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Σ x over `axis` (None for all, a number or a tuple). float16 is added, and given, as float32.

    Shapes: as `numpy.sum`. CuPy's sums are trees in any case, and on tensors this is an op.
    """
    x = widened(x)
    if xp is not np or x.dtype.kind != "f" or x.size <= BLOCK:
        return xp.sum(x, axis=axis, keepdims=keepdims)
    if x.flags.c_contiguous:  # the common cases, without the search for an order
        if axis is None:
            return np.add.reduce(x, axis=None, keepdims=keepdims)  # type: ignore[call-overload]
        axes = axis if isinstance(axis, tuple) else (axis + x.ndim if axis < 0 else axis,)
        if axes and axes[0] >= 0 and axes[-1] < x.ndim and _are_neighbours(axes):
            return _sum_neighbours(x, axes, keepdims)
    one_by_one = _added_one_by_one(x, range(x.ndim) if axis is None else axis)
    while prod([x.shape[a] for a in one_by_one]) > BLOCK:
        longest = max(one_by_one, key=lambda a: x.shape[a])
        x = _sum_rows(x, longest)
        one_by_one.remove(longest)
    return np.sum(x, axis=axis, keepdims=keepdims)


def _are_neighbours(axes: Shape) -> bool:
    """Whether axes, from 0 on, follow each other."""
    return len(axes) == 1 or axes == tuple(range(axes[0], axes[0] + len(axes)))


def _sum_neighbours(x: Array, axes: Shape, keepdims: bool) -> Array:
    """Σ x over axes of a C-contiguous array that follow each other, which are one in memory."""
    first = axes[0]
    before, after = x.shape[:first], x.shape[axes[-1] + 1 :]
    terms = x.shape[first] if len(axes) == 1 else prod([x.shape[a] for a in axes])
    if terms <= BLOCK or prod(after) == 1:
        return np.add.reduce(x, axis=axes, keepdims=keepdims)  # type: ignore[call-overload]
    total = _sum_rows(x.reshape(*before, terms, *after), first)
    return total.reshape(before + ((1,) * len(axes) if keepdims else ()) + after)


def _added_one_by_one(x: Array, axis: int | Iterable[int]) -> list[int]:
    """Those of the axes to be summed that NumPy does not add in pairs."""
    summed = np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
    axes = [a for a in range(x.ndim) if x.shape[a] > 1]
    axes.sort(key=lambda a: abs(x.strides[a]) or inf)  # 0 where an axis is repeated
    pairs = 0  # so many of the innermost axes are one in memory, and are summed in pairs
    while pairs < len(axes) and axes[pairs] in summed and x.strides[axes[pairs]]:
        a = axes[pairs]
        if pairs and x.strides[a] != x.shape[axes[pairs - 1]] * x.strides[axes[pairs - 1]]:
            break
        pairs += 1
    return [a for a in axes[pairs:] if a in summed]


def _sum_rows(x: Array, axis: int) -> Array:
    """Σ x over one axis, of which 1 is left."""
    rows = x.shape[axis]
    if rows <= BLOCK:
        return np.add.reduce(x, axis=axis, keepdims=True)
    size = prod([n for a, n in enumerate(x.shape) if abs(x.strides[a]) < abs(x.strides[axis])])
    joined = min(max(1, WIDTH // size), rows // BLOCK)
    blocks = rows // (BLOCK * joined)
    whole = blocks * BLOCK * joined
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    at = (slice(None),) * axis
    parts = x[(*at, slice(whole))].reshape(*before, blocks, BLOCK, joined, *after)
    sums = np.add.reduce(parts, axis=axis + 1).reshape(*before, blocks * joined, *after)
    total = _sum_rows(sums, axis)
    if whole < rows:
        total += _sum_rows(x[(*at, slice(whole, None))], axis)
    return total


def mean_of(xp: Xp, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Σ x / n over `axis`, n the number of elements that a sum has. float16 is given as float32."""
    total = sum_of(xp, x, axis, keepdims)
    return total / (x.size // max(1, total.size) if total.size else 1)


def running(xp: Xp, name: str, x: Array, axis: Axis) -> Array:
    """NumPy's `cumsum` or `cumprod` of floats, rounded once.

    They add one element after another, so float32's rounding errors would grow with the length.
    Therefore they run in float64. On tensors they are ops.
    """
    if xp.__name__ == "minigrad.functions" or x.dtype.char != "f":
        return getattr(xp, name)(x, axis=axis)
    return getattr(xp, name)(x, axis=axis, dtype=np.float64).astype(x.dtype)


def centred(xp: Xp, x: Array, axis: Axis) -> Array:
    """x - μ, the distances from the mean along `axis`.

    The mean of numbers far from 0 is rounded, and its error would be in every distance: 768 times
    1000.1 would have a variance. So the mean of the distances is subtracted as well.
    """
    x = x - mean_of(xp, x, axis, keepdims=True)
    return x - mean_of(xp, x, axis, keepdims=True)
