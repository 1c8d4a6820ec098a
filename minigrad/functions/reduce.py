"""Reductions. `axis` is None (all axes), a number or a tuple; `keepdims` keeps them with size 1."""

from __future__ import annotations

from math import prod
from typing import Any

from minigrad import ops
from minigrad.device import namespace_of
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_float, as_tensor
from minigrad.ops.reduce import normalize_axes
from minigrad.tensor import Axis, Tensor


def _axis(axis: Any, x: Tensor) -> Any:
    """A list of axes as a tuple. A number without axes may be reduced over axis 0 or -1."""
    if isinstance(axis, list):
        return tuple(axis)
    return normalize_axes(axis, 0) if x.ndim == 0 and axis in (0, -1) else axis


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis`."""
    x = as_tensor(x)
    return apply(ops.reduce.sum_, x, axis=_axis(axis, x), keepdims=keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis`; integers are averaged as float32."""
    x = as_float(x)
    return apply(ops.reduce.mean, x, axis=_axis(axis, x), keepdims=keepdims)


def var(x: Any, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Variance over `axis`: squared distances from the mean, summed and divided by n - ddof."""
    x = as_float(x)
    axis = _axis(axis, x)
    try:
        count = prod(x.shape[a] for a in normalize_axes(axis, x.ndim))
    except ValueError as error:
        raise ShapeError(f"var of shape {x.shape}: {error}") from error
    if count <= ddof:
        raise ValueError(f"var of shape {x.shape}: {count} elements along the axis, ddof={ddof}")
    return apply(ops.reduce.var, x, axis=axis, ddof=ddof, keepdims=keepdims)


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
    x = as_tensor(x)
    xp = namespace_of(x.array)
    try:
        return Tensor.wrap(xp.asarray(getattr(xp, name)(x.array, axis=axis, keepdims=keepdims)))
    except ValueError as error:
        raise ShapeError(f"{name} of shape {x.shape} over axis {axis}: {error}") from error


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
