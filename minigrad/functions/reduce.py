"""Reductions. `axis` is None (all axes), a number or a tuple; `keepdims` keeps them with size 1."""

from __future__ import annotations

from math import prod
from typing import Any

from minigrad.device import namespace_of
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_float, as_tensor
from minigrad.op import apply
from minigrad.ops.reduce import normalize_axes
from minigrad.tensor import Axis, Tensor


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis`."""
    return apply("sum", as_tensor(x), axis=axis, keepdims=keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis`; integers are averaged as float32."""
    return apply("mean", as_float(x), axis=axis, keepdims=keepdims)


def var(x: Any, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Variance over `axis`: squared distances from the mean, summed and divided by n - ddof."""
    x = as_float(x)
    try:
        count = prod(x.shape[a] for a in normalize_axes(axis, x.ndim))
    except ValueError as error:
        raise ShapeError(f"var of shape {x.shape}: {error}") from error
    if count <= ddof:
        raise ValueError(f"var of shape {x.shape}: {count} elements along the axis, ddof={ddof}")
    centred = x - mean(x, axis, keepdims=True)
    return sum(centred * centred, axis, keepdims) / (count - ddof)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Maximum over `axis`; elements that tie share the gradient equally."""
    return apply("max", as_tensor(x), axis=axis, keepdims=keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Minimum over `axis`; elements that tie share the gradient equally."""
    return apply("min", as_tensor(x), axis=axis, keepdims=keepdims)


def argmax(x: Any, axis: int | None = None) -> Tensor:
    """Index of the first maximum, along `axis` or in the flattened tensor."""
    x = as_tensor(x)
    return Tensor(namespace_of(x.data).asarray(x.data.argmax(axis)))


def argmin(x: Any, axis: int | None = None) -> Tensor:
    """Index of the first minimum, along `axis` or in the flattened tensor."""
    x = as_tensor(x)
    return Tensor(namespace_of(x.data).asarray(x.data.argmin(axis)))


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """ln Σ e^x over `axis`, without overflow."""
    return apply("logsumexp", as_float(x), axis=axis, keepdims=keepdims)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """e^x / Σ e^x along `axis`, without overflow."""
    return apply("softmax", as_float(x), axis=axis)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """ln softmax(x) along `axis`, without overflow or ln 0."""
    return apply("log_softmax", as_float(x), axis=axis)
