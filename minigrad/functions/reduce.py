"""Reductions. `axis` is None (all axes), a number or a tuple; `keepdims` keeps them with size 1."""

from __future__ import annotations

import math
from typing import Any

from minigrad import ops
from minigrad.dtypes import compute_dtype
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_float, as_tensor
from minigrad.functions.elementwise import astype, sqrt, where
from minigrad.functions.outside import of_one
from minigrad.functions.shape import reshape, transpose
from minigrad.op import Axis
from minigrad.ops.reduce import normalize_axes
from minigrad.tensor import Tensor

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "log_softmax",
    "logsumexp",
    "max",
    "mean",
    "min",
    "prod",
    "softmax",
    "std",
    "sum",
    "var",
]


def _axis(axis: Any, x: Tensor) -> Any:
    """A list of axes as a tuple. A number without axes may be reduced over axis 0 or -1."""
    if isinstance(axis, list):
        return tuple(axis)
    return normalize_axes(axis, 0) if x.ndim == 0 and axis in (0, -1) else axis


def sum(x: Any, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum over `axis`, in `dtype` if one is given. Integers narrower than int64 are added in it."""
    x = as_tensor(x) if dtype is None else astype(x, dtype, copy=False)
    total = apply(ops.reduce.sum_, x, axis=_axis(axis, x), keepdims=keepdims)
    return total if dtype is None else astype(total, dtype, copy=False)


def prod(x: Any, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """Product over `axis`, in `dtype` if one is given; 1 where there is nothing to multiply."""
    x = as_tensor(x) if dtype is None else astype(x, dtype, copy=False)
    try:
        axes = normalize_axes(_axis(axis, x), x.ndim)
    except ValueError as error:
        raise ShapeError(f"prod of shape {x.shape}: {error}") from error
    left = [a for a in range(x.ndim) if a not in axes]
    sizes = [x.shape[a] for a in left]
    last = reshape(transpose(x, [*left, *axes]), [*sizes, math.prod(x.shape[a] for a in axes)])
    product = apply(ops.cumulative.prod, last)
    product = product if dtype is None else astype(product, dtype, copy=False)
    if not keepdims:
        return product
    return reshape(product, [1 if a in axes else n for a, n in enumerate(x.shape)])


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis`; integers are averaged as float32."""
    x = as_float(x)
    return apply(ops.reduce.mean, x, axis=_axis(axis, x), keepdims=keepdims)


def var(
    x: Any,
    axis: Axis = None,
    ddof: float = 0,
    keepdims: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Variance over `axis`: squared distances from the mean, summed and divided by n - ddof.

    `correction` is the standard's and PyTorch's word for `ddof`. NaN if n is not above it.
    """
    x = as_float(x)
    axis = _axis(axis, x)
    ddof = ddof if correction is None else correction
    return apply(ops.reduce.var, x, axis=axis, ddof=ddof, keepdims=keepdims)


def std(
    x: Any,
    axis: Axis = None,
    ddof: float = 0,
    keepdims: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Standard deviation over `axis`, the root of `var`; its gradient is 0 where it is 0."""
    x = as_float(x)
    dtype = x.dtype
    x = astype(x, compute_dtype(dtype), copy=False)  # a variance may be beyond float16
    variance = var(x, axis, ddof, keepdims, correction=correction)
    none = variance == 0
    return astype(where(none, 0, sqrt(where(none, 1, variance))), dtype, copy=False)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Maximum over `axis`; elements that tie share the gradient equally."""
    x = as_tensor(x)
    return apply(ops.reduce.max_, x, axis=_axis(axis, x), keepdims=keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Minimum over `axis`; elements that tie share the gradient equally."""
    x = as_tensor(x)
    return apply(ops.reduce.min_, x, axis=_axis(axis, x), keepdims=keepdims)


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Index of the first maximum (or NaN), along `axis` or in the flattened tensor."""
    return _arg("argmax", x, axis, keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Index of the first minimum (or NaN), along `axis` or in the flattened tensor."""
    return _arg("argmin", x, axis, keepdims)


def _arg(name: str, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    return of_one(name, x, axis=axis, keepdims=keepdims)


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether all elements along `axis` are True, or not 0."""
    x = as_tensor(x)
    return of_one("all", x, axis=_axis(axis, x), keepdims=keepdims)


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether an element along `axis` is True, or not 0."""
    x = as_tensor(x)
    return of_one("any", x, axis=_axis(axis, x), keepdims=keepdims)


def count_nonzero(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements along `axis` are not 0."""
    return sum(as_tensor(x) != 0, axis, keepdims)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """ln Σ e^x over `axis`, without overflow."""
    x = as_float(x)
    return apply(ops.reduce.logsumexp, x, axis=_axis(axis, x), keepdims=keepdims)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """e^x / Σ e^x along `axis`, without overflow."""
    return apply(ops.reduce.softmax, as_float(x), axis=axis)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """ln softmax(x) along `axis`, without overflow or ln 0."""
    return apply(ops.reduce.log_softmax, as_float(x), axis=axis)
