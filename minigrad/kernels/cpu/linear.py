"""Linear layer:  y = x Wᵀ + b, or y = max(x Wᵀ + b, 0). Twin of `minigrad.ops.linear`.

Shapes: x (..., C_in), weight W (C_out, C_in), bias b (C_out,) or None, y (..., C_out).

In feature-major memory, with the N positions of x and y as columns of X and Y:

    Y = W X + b,   dX = Wᵀ dY,   dW = dY Xᵀ,   db = dY 1     each one call of BLAS

Saved: X, W, and with an activation also Y: dY is 0 where Y is 0.
"""

from __future__ import annotations

import numpy as np

from minigrad.kernels.cpu.layout import as_logical, as_rows, constant, empty_rows
from minigrad.kernels.cpu.scratch import scratch
from minigrad.op import Array, Gradients, Needs, Places, Result, Saved

NARROW = 64  # channels; transposing the gradient of a larger weight costs more than it saves


def forward(
    x: Array, weight: Array, bias: Array | None, *, activation: str | None = None
) -> Result:
    rows = as_rows(x)  # (C_in, N)
    y = _product(weight, rows)  # (C_out, N)
    if bias is not None:
        y += bias[:, None]
    if activation is not None:
        # A row of zeros, because NumPy's maximum with a scalar is not vectorised.
        np.maximum(y, constant(0.0, y.shape[1], y.dtype), out=y)
    out = as_logical(y, x.shape[:-1])
    return out, (x.shape, rows, weight, None if activation is None else y)


def backward(dy: Array, saved: Saved, needs: Needs, *, activation: str | None = None) -> Gradients:
    return backward_into(dy, saved, needs, (None, None, None), activation=activation)


def backward_into(
    dy: Array, saved: Saved, needs: Needs, places: Places, *, activation: str | None = None
) -> Gradients:
    shape, rows, weight, y = saved
    dy_rows = as_rows(dy)  # (C_out, N)
    if activation is not None:
        # y is never negative; a NaN is not 0, and lets dy pass.
        positive = np.not_equal(y, 0, out=scratch("positive", y.shape, np.dtype(bool)))
        masked = scratch("dy", y.shape, y.dtype)
        # Copied first, because multiplying floats by booleans converts in small buffers.
        np.copyto(masked, positive)
        dy_rows = np.multiply(dy_rows, masked, out=masked)
    dx = as_logical(_product(weight.T, dy_rows), shape[:-1]) if needs[0] else None
    dweight = _dweight(dy_rows, rows, places[1]) if needs[1] else None
    dbias = None
    if needs[2]:
        ones = constant(1.0, dy_rows.shape[1], dy_rows.dtype)
        dbias = np.matmul(dy_rows, ones, out=places[2])
    return dx, dweight, dbias


def _product(weight: Array, rows: Array) -> Array:
    dtype = np.result_type(weight, rows)
    return np.matmul(weight, rows, out=empty_rows(weight.shape[:1], rows.shape[1], dtype))


def _dweight(dy: Array, x: Array, place: Array | None) -> Array:
    """dY Xᵀ, (C_out, N) @ (N, C_in), into `place` if that is an array."""
    if not x.shape[0] > NARROW >= dy.shape[0]:
        return np.matmul(dy, x.T, out=place)
    # BLAS is up to a fifth faster if the short side comes last: compute X dYᵀ and transpose it.
    turned = np.matmul(x, dy.T).T
    if place is None:
        return turned
    np.copyto(place, turned)
    return place
