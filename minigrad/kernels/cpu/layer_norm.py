"""Layer normalisation, the same after a residual sum, and RMS normalisation. Twin of
`minigrad.ops.layer_norm`.

    y = w·x̂ + b,   x̂ = (x - μ)/σ,   μ = mean(x),   σ = √(var(x) + ε)    over the last axis

Shapes: x (..., C), weight w (C,) or None for 1, bias b (C,) or None for 0, y (..., C).

In feature-major memory with rows X̂ and dY (C, N), all sums are matrix-vector products:

    dX = (w·dY - m₁ - X̂·m₂)/σ,   m₁ = (w/C)ᵀ dY,   m₂ = (w/C)ᵀ (dY·X̂)     (N,)
    dw = (dY·X̂) 1,   db = dY 1                                             (C,)

so that dY·X̂ is used for both dw and m₂, and w·dY is computed only once, for dX.

μ is rounded, and its rounding error is in every x - μ. Where |μ| is many times σ that error
matters. Only these positions are centred a second time.

Saved: X̂, 1/σ and w, from which all gradients follow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.kernels.cpu.layout import (
    as_feature_major,
    as_logical,
    as_rows,
    constant,
    empty_rows,
)
from minigrad.kernels.cpu.scratch import scratch
from minigrad.op import Array, Gradients, Needs, Places, Result, Saved, Shape

FAR = 4  # means of so many standard deviations are centred a second time


def forward(x: Array, weight: Array | None, bias: Array | None, *, eps: float) -> Result:
    rows = empty_rows(x.shape[-1:], x.size // x.shape[-1], x.dtype)
    np.copyto(rows, as_rows(x))
    return _normalise(rows, x.shape, weight, bias, eps)


def backward(dy: Array, saved: Saved, needs: Needs, *, eps: float) -> Gradients:
    return backward_into(dy, saved, needs, (None, None, None), eps=eps)


def backward_into(
    dy: Array, saved: Saved, needs: Needs, places: Places, *, eps: float
) -> Gradients:
    normal, inverse_std, weight = saved  # (C, N), (N,), (C,)
    channels, positions = normal.shape
    dtype = normal.dtype
    dy_rows = as_feature_major(dy)  # (C, N)
    product = np.multiply(dy_rows, normal, out=scratch("product", normal.shape, dtype))
    ones = constant(1.0, positions, dtype)
    dweight = np.matmul(product, ones, out=places[1]) if needs[1] else None
    dbias = np.matmul(dy_rows, ones, out=places[2]) if needs[2] else None
    if not needs[0]:
        return None, dweight, dbias
    mean_of = constant(1 / channels, channels, dtype)
    if weight is None:
        mean_dy, mean_product = np.matmul(mean_of, dy_rows), np.matmul(mean_of, product)
        dx = np.subtract(dy_rows, mean_dy, out=_like(dy_rows))
    else:
        mean_of = weight * mean_of
        mean_dy, mean_product = np.matmul(mean_of, dy_rows), np.matmul(mean_of, product)
        dx = np.multiply(dy_rows, weight[:, None], out=_like(dy_rows))
        dx -= mean_dy
    dx -= np.multiply(normal, mean_product, out=product)
    dx *= inverse_std
    return as_logical(dx, dy.shape[:-1]), dweight, dbias


class add_layer_norm:
    """y = LN(x + r): a residual sum and the norm after it. x and r get the same gradient."""

    @staticmethod
    def forward(
        x: Array, residual: Array, weight: Array | None, bias: Array | None, *, eps: float
    ) -> Result:
        rows, other = as_feature_major(x), as_feature_major(residual)
        total = np.add(rows, other, out=_like(rows, np.result_type(rows, other)))
        return _normalise(total, x.shape, weight, bias, eps)

    @staticmethod
    def backward(dy: Array, saved: Saved, needs: Needs, *, eps: float) -> Gradients:
        return add_layer_norm.backward_into(dy, saved, needs, (None,) * 4, eps=eps)

    @staticmethod
    def backward_into(
        dy: Array, saved: Saved, needs: Needs, places: Places, *, eps: float
    ) -> Gradients:
        wanted = (needs[0] or needs[1], needs[2], needs[3])
        dx, dweight, dbias = backward_into(dy, saved, wanted, (None, *places[2:]), eps=eps)
        return dx, dx, dweight, dbias


class rms_norm:
    """y = w·x/ρ with ρ = √(mean(x²) + ε);  dX = (w·dY - X̂·m₂)/ρ with m₂ as above"""

    @staticmethod
    def forward(x: Array, weight: Array | None, *, eps: float) -> Result:
        rows = as_feature_major(x)  # (C, N)
        mean_of = constant(1 / rows.shape[0], rows.shape[0], rows.dtype)
        inverse_rms = _inverse_std(rows, mean_of, eps)  # (N,)
        normal = np.multiply(rows, inverse_rms, out=_like(rows))
        y = normal if weight is None else np.multiply(normal, weight[:, None], out=_like(rows))
        return as_logical(y, x.shape[:-1]), (normal, inverse_rms, weight)

    @staticmethod
    def infer(x: Array, weight: Array | None, *, eps: float) -> Array:
        rows = as_feature_major(x)
        mean_of = constant(1 / rows.shape[0], rows.shape[0], rows.dtype)
        y = np.multiply(rows, _inverse_std(rows, mean_of, eps), out=_like(rows))
        if weight is not None:
            y *= weight[:, None]
        return as_logical(y, x.shape[:-1])

    @staticmethod
    def backward(dy: Array, saved: Saved, needs: Needs, *, eps: float) -> Gradients:
        return rms_norm.backward_into(dy, saved, needs, (None, None), eps=eps)

    @staticmethod
    def backward_into(
        dy: Array, saved: Saved, needs: Needs, places: Places, *, eps: float
    ) -> Gradients:
        normal, inverse_rms, weight = saved  # (C, N), (N,), (C,)
        channels, positions = normal.shape
        dtype = normal.dtype
        rows = as_feature_major(dy)
        product = np.multiply(rows, normal, out=scratch("product", normal.shape, dtype))
        dweight = None
        if needs[1]:
            dweight = np.matmul(product, constant(1.0, positions, dtype), out=places[1])
        if not needs[0]:
            return None, dweight
        mean_of = constant(1 / channels, channels, dtype)
        if weight is None:
            mean_product, dx = np.matmul(mean_of, product), rows.copy()
        else:
            mean_product = np.matmul(weight * mean_of, product)
            dx = np.multiply(rows, weight[:, None], out=_like(rows))
        dx -= np.multiply(normal, mean_product, out=product)
        dx *= inverse_rms
        return as_logical(dx, dy.shape[:-1]), dweight


def _normalise(
    x: Array, shape: Shape, weight: Array | None, bias: Array | None, eps: float
) -> Result:
    """Layer norm of the rows x (C, N), which are overwritten by x̂."""
    channels = x.shape[0]
    mean_of = constant(1 / channels, channels, x.dtype)
    mean = np.matmul(mean_of, x)
    x -= mean
    inverse_std = _inverse_std(x, mean_of, eps)  # (N,)
    mean *= inverse_std
    np.absolute(mean, out=mean)
    if not np.maximum.reduce(mean, initial=0) <= FAR:
        far = np.greater(mean, FAR).nonzero()[0]
        again = x[:, far]
        again -= np.matmul(mean_of, again)
        x[:, far] = again
        inverse_std[far] = _inverse_std(again, mean_of, eps)
    x *= inverse_std
    saved = (x, inverse_std, weight)
    if weight is None and bias is None:
        return as_logical(x, shape[:-1]), saved
    y = _like(x)
    if weight is None:
        np.add(x, bias[:, None], out=y)  # type: ignore[index]
    else:
        np.multiply(x, weight[:, None], out=y)
        if bias is not None:
            y += bias[:, None]
    return as_logical(y, shape[:-1]), saved


def _inverse_std(centred: Array, mean_of: Array, eps: float) -> Array:
    square = np.multiply(centred, centred, out=scratch("square", centred.shape, centred.dtype))
    variance = np.matmul(mean_of, square)
    variance += eps
    return np.reciprocal(np.sqrt(variance, out=variance), out=variance)


def _like(rows: Array, dtype: Any = None) -> Array:
    return empty_rows(rows.shape[:1], rows.shape[1], dtype or rows.dtype)
