"""Cumulative sums and products."""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.dtypes import DEFAULT_INT
from minigrad.engine import apply
from minigrad.functions.convert import as_tensor, axes_of
from minigrad.functions.elementwise import astype
from minigrad.functions.shape import concatenate, moveaxis, reshape
from minigrad.tensor import Tensor

__all__ = ["cumprod", "cumsum", "cumulative_prod", "cumulative_sum"]


def cumsum(x: Any, axis: int | None = None, *, dtype: Any = None) -> Tensor:
    """The sum of all up to each element along `axis`; of the flattened tensor if it is None."""
    x, axis = _prepared("cumsum", x, axis, dtype)
    return astype(apply(ops.cumulative.cumsum, x, axis=axis), x.dtype, copy=False)


def cumprod(x: Any, axis: int | None = None, *, dtype: Any = None) -> Tensor:
    """The product of all up to each element along `axis`; of the flattened tensor if it is None.

    Its gradient takes a step of Python for each place along the axis.
    """
    x, axis = _prepared("cumprod", x, axis, dtype)
    y = moveaxis(apply(ops.cumulative.cumprod, moveaxis(x, axis, -1)), -1, axis)
    return astype(y, x.dtype, copy=False)


def cumulative_sum(
    x: Any, axis: int | None = None, *, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """`cumsum` under the standard's name; with `include_initial` after a 0."""
    return _after(0, cumsum(x, axis, dtype=dtype), axis, include_initial)


def cumulative_prod(
    x: Any, axis: int | None = None, *, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """`cumprod` under the standard's name; with `include_initial` after a 1."""
    return _after(1, cumprod(x, axis, dtype=dtype), axis, include_initial)


def _prepared(name: str, x: Any, axis: int | None, dtype: Any) -> tuple[Tensor, int]:
    """x in the dtype of its sums, and the axis."""
    x = as_tensor(x) if dtype is None else astype(x, dtype, copy=False)
    if x.ndim == 0 or axis is None:
        x, axis = reshape(x, -1), 0 if axis is None else axis
    if dtype is None and (x.dtype.kind == "b" or x.dtype.kind == "i"):
        x = astype(x, DEFAULT_INT, copy=False)
    elif dtype is None and x.dtype.kind == "u":
        x = astype(x, "uint64", copy=False)
    return x, axes_of(name, (axis,), x.ndim)[0]


def _after(first: int, y: Tensor, axis: int | None, wanted: bool) -> Tensor:
    if not wanted:
        return y
    axis = 0 if axis is None else axis
    shape = list(y.shape)
    shape[axis] = 1
    start = Tensor.wrap(y.device.xp.full(shape, first, y.dtype))
    return concatenate([start, y], axis)
