"""Linear algebra, as `minigrad.linalg`: matrices are the last two axes, others are stacks of them.

It is the half of the standard's extension that has derivatives and needs no kernels of its own.
NumPy and CuPy (LAPACK, cuSOLVER) compute.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from minigrad import ops
from minigrad.device import namespace_of
from minigrad.dtypes import compute_dtype
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions import rearrange
from minigrad.functions.comparisons import isfinite
from minigrad.functions.convert import as_float, as_pair, as_tensor, axes_of
from minigrad.functions.creation import eye
from minigrad.functions.elementwise import abs, astype, power, stop_gradient, where
from minigrad.functions.products import matmul, outer, tensordot, vecdot
from minigrad.functions.reduce import count_nonzero, max, min, sum
from minigrad.functions.shape import (
    broadcast_to,
    expand_dims,
    matrix_transpose,
    moveaxis,
    reshape,
    squeeze,
    stack,
    transpose,
    unstack,
)
from minigrad.op import Axis
from minigrad.state import STATE
from minigrad.tensor import Tensor

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_transpose",
    "norm",
    "outer",
    "slogdet",
    "solve",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]


class Slogdet(NamedTuple):
    """Sign and logarithm of the absolute value of a determinant."""

    sign: Tensor
    logabsdet: Tensor


def inv(x: Any) -> Tensor:
    """The inverse of a square matrix.

    Raises:
        numpy.linalg.LinAlgError: the matrix is singular.
    """
    return apply(ops.linear_algebra.inv, _square("inv", x))


def det(x: Any) -> Tensor:
    """The determinant of a square matrix. Its second gradient needs the inverse."""
    return apply(ops.linear_algebra.det, _square("det", x))


def slogdet(x: Any) -> Slogdet:
    """Sign and ln |det x|, which neither overflow nor vanish for large matrices."""
    x = _square("slogdet", x)
    sign = namespace_of(x.array).linalg.slogdet(x.array.astype(compute_dtype(x.dtype)))[0]
    sign = x.device.xp.asarray(sign, dtype=x.dtype)
    return Slogdet(Tensor.wrap(sign), apply(ops.linear_algebra.log_abs_det, x))


def solve(a: Any, b: Any) -> Tensor:
    """X with a X = b: a of (..., N, N), b of (..., N, K) or (N,).

    Raises:
        numpy.linalg.LinAlgError: a is singular.
    """
    a, b = as_pair(a, b)
    a, b = _square("solve", a), as_float(b)
    if b.ndim == 1:
        return squeeze(apply(ops.linear_algebra.solve, a, expand_dims(b, -1)), -1)
    return apply(ops.linear_algebra.solve, a, b)


def cholesky(x: Any, *, upper: bool = False) -> Tensor:
    """The lower triangular L with L Lᵀ = x, or Lᵀ, for a symmetric x that is positive definite.

    Raises:
        numpy.linalg.LinAlgError: x is not positive definite.
    """
    lower = apply(ops.linear_algebra.cholesky, _square("cholesky", x))
    return matrix_transpose(lower) if upper else lower


def matrix_power(x: Any, n: int) -> Tensor:
    """A square matrix times itself, n times; of its inverse if n is negative."""
    x = as_tensor(x)
    x = _square("matrix_power", x) if n < 0 else _square("matrix_power", x, floats=False)
    if n == 0:
        return broadcast_to(eye(x.shape[-1], dtype=x.dtype, device=x.device), x.shape)
    power, n = inv(x) if n < 0 else x, n if n > 0 else -n
    result = None
    while n:  # x to the powers of two of which n is the sum
        if n & 1:
            result = power if result is None else matmul(result, power)
        n >>= 1
        power = matmul(power, power) if n else power
    assert result is not None
    return result


def cross(x: Any, y: Any, axis: int = -1) -> Tensor:
    """The cross product of vectors of three along `axis`."""
    x, y = as_pair(x, y)
    ndim = x.ndim if x.ndim > y.ndim else y.ndim
    (place,) = axes_of("cross", (axis,), ndim)
    if axis < 0:
        place -= ndim
    if x.shape[place] != 3 or y.shape[place] != 3:
        raise ShapeError(f"cross of shapes {x.shape} and {y.shape}: axis {axis} needs 3 elements")
    (a, b, c), (u, v, w) = unstack(x, place), unstack(y, place)
    return moveaxis(stack([b * w - c * v, c * u - a * w, a * v - b * u], -1), -1, place)


def diagonal(x: Any, *, offset: int = 0) -> Tensor:
    """The elements with equal places on the last two axes."""
    return rearrange.diagonal(x, offset, -2, -1)


def trace(x: Any, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sum of a diagonal of the last two axes."""
    return rearrange.trace(x, offset, -2, -1, dtype=dtype)


def vector_norm(x: Any, *, axis: Axis = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """(Σ |x|^ord)^(1/ord) over `axis`; for ±inf the largest or smallest |x|, for 0 a count.

    The 2-norm of a vector of zeros has the gradient 0.
    """
    x = as_float(x)
    axes = axes_of("vector_norm", axis, x.ndim)
    if ord == 2:
        left = [a for a in range(x.ndim) if a not in axes]
        sizes = [x.shape[a] for a in left]
        rows = reshape(transpose(x, [*left, *axes]), [*sizes, math.prod(x.shape[a] for a in axes)])
        y = apply(ops.linear_algebra.norm, rows)
        return reshape(y, [1 if a in axes else n for a, n in enumerate(x.shape)]) if keepdims else y
    if ord == 0:
        return astype(count_nonzero(x, axes, keepdims), x.dtype)
    dtype = x.dtype
    size = abs(astype(x, compute_dtype(dtype), copy=False))
    if ord == 1:
        y = sum(size, axes, keepdims)
    elif math.isinf(ord):
        y = max(size, axes, keepdims) if ord > 0 else min(size, axes, keepdims)
    else:  # of |x|/m, m the largest, so that no power leaves the range of floats
        m = stop_gradient((max if size.size else sum)(size, axes, keepdims=True))
        m = where((m > 0) & isfinite(m), m, 1)
        y = power(sum(power(size / m, ord), axes, keepdims), 1 / ord)
        y = y * (m if keepdims else squeeze(m, axes))
    return astype(y, dtype, copy=False)


def matrix_norm(x: Any, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """A norm of the last two axes.

    Args:
        ord: "fro", √Σ x²; 1 or -1, the largest or smallest sum of a column's |x|; inf or -inf, of a
            row's; 2, -2 and "nuc", the largest, the smallest and the sum of the singular values.
            Where two of these are equal, the latter have no second gradient here.
    """
    x = as_float(x)
    if x.ndim < 2:
        raise ShapeError(f"matrix_norm needs a matrix, not shape {x.shape}")
    if ord in ("fro", None):
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in (1, -1, math.inf, -math.inf):
        added, chosen = (-2, -1) if ord in (1, -1) else (-1, -2)
        size = abs(astype(x, compute_dtype(x.dtype), copy=False))
        y = (max if ord > 0 else min)(sum(size, added, keepdims=True), chosen, keepdims=True)
        return astype(y if keepdims else squeeze(y, (-2, -1)), x.dtype, copy=False)
    if ord not in (2, -2, "nuc"):
        raise ValueError(f"matrix_norm: {ord!r} is none of 'fro', 'nuc', 1, -1, 2, -2, inf, -inf")
    wide = astype(x, compute_dtype(x.dtype), copy=False)
    if x.requires_grad and STATE.grad_enabled:
        values = apply(ops.linear_algebra.singular_values, wide)
    else:  # alone they take a fraction of the time
        xp = namespace_of(x.array)
        values = Tensor.wrap(xp.linalg.svd(wide.array, compute_uv=False))
    y = astype({"nuc": sum, 2: max, -2: min}[ord](values, -1), x.dtype, copy=False)
    return expand_dims(y, (-2, -1)) if keepdims else y


def packed_svd(x: Tensor) -> Tensor:
    """[Uᵀ | s | Vᵀ], side by side: what the textbook takes higher derivatives of `s` from.

    It is not offered: where singular values are equal it has no derivative.
    """
    return apply(ops.linear_algebra.svd, x)


def norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """A norm of vectors (one axis) or matrices (two); without `ord` and `axis` √Σ x² of all.

    As `numpy.linalg.norm`: see `vector_norm` and `matrix_norm` for what `ord` may be.
    """
    x = as_float(x)
    if ord is None:
        return vector_norm(x, axis=axis, keepdims=keepdims)
    axes = axes_of("norm", axis, x.ndim)
    if len(axes) == 1:
        return vector_norm(x, axis=axes, keepdims=keepdims, ord=ord)
    if len(axes) != 2:
        raise ShapeError(f"norm of order {ord!r} takes one or two axes, not {len(axes)}")
    y = matrix_norm(moveaxis(x, axes, (-2, -1)), ord=ord)
    return expand_dims(y, axes) if keepdims else y


def _square(name: str, x: Any, floats: bool = True) -> Tensor:
    x = as_float(x) if floats else as_tensor(x)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name} needs square matrices (..., N, N), not shape {x.shape}")
    return x
