"""Linear layer:  y = x Wᵀ + b, or y = max(x Wᵀ + b, 0). Twin of `minigrad.ops.linear`.

Shapes: x (..., C_in), weight W (C_out, C_in), bias b (C_out,) or None, y (..., C_out).

Forward is one launch: the matmul also adds the bias and applies ReLU. Backward, with the N rows of
x and dy as matrices, is

    dx = dy W,   dW = dyᵀ x,   db = Σ_rows dy

With ReLU, dy is first set to 0 where y is 0. Our own kernels do all this in one launch
(linear_backward.py). With cuBLASLt there are three: the mask and db, then dx, then dW. The gradient
that x already has, from a residual connection, is added to dx in the same launch.

Saved: x and W (rounded, if cuBLASLt needs them so); y if there is ReLU, for the mask; and the
precision of the matmul, which backward uses too.
"""

from __future__ import annotations

from minigrad.kernels.cuda.activations import relu
from minigrad.kernels.cuda.bf16 import to_bf16
from minigrad.kernels.cuda.columns import column_sums, masked_column_sums
from minigrad.kernels.cuda.compile import dense
from minigrad.kernels.cuda.gemm import factors_of, multiply, prepared, uses_cublaslt
from minigrad.kernels.cuda.linear_backward import linear_backward
from minigrad.kernels.cuda.support import of_floats, of_rows
from minigrad.op import Array, Gradients, Needs, Places, Result, Saved

ADDS_TO = 0  # see minigrad.op


def supports(
    x: Array, weight: Array, bias: Array | None, *, activation: str | None = None
) -> str | None:
    return of_floats(x, weight, bias) or of_rows(x)


def forward(
    x: Array, weight: Array, bias: Array | None, *, activation: str | None = None
) -> Result:
    rows = dense(x).reshape(-1, x.shape[-1])  # (N, C_in)
    factors, weight = factors_of(x), dense(weight)
    if uses_cublaslt(rows.size * weight.shape[0]):
        rows, weight = prepared(factors, rows, weight)
    y = multiply(rows, weight.T, bias, activation is not None, factors=factors)  # (N, C_out)
    saved = (x.shape, rows, weight, None if activation is None else y, factors)
    return y.reshape(*x.shape[:-1], weight.shape[0]), saved


def backward(
    dy: Array,
    saved: Saved,
    needs: Needs,
    *,
    so_far: Array | None = None,
    activation: str | None = None,
) -> Gradients:
    places = (None, None, None)
    return backward_into(dy, saved, needs, places, so_far=so_far, activation=activation)


def backward_into(
    dy: Array,
    saved: Saved,
    needs: Needs,
    places: Places,
    *,
    so_far: Array | None = None,
    activation: str | None = None,
) -> Gradients:
    shape, rows, weight, y, factors = saved
    dy_rows = dense(dy).reshape(rows.shape[0], weight.shape[0])  # (N, C_out)
    own = rows.dtype == dy.dtype and not uses_cublaslt(rows.size * weight.shape[0])
    before = None if so_far is None else dense(so_far).reshape(rows.shape)
    if own and needs[1] >= needs[2]:
        dx, dweight, dbias = linear_backward(
            dy_rows, y, rows, weight, needs, places, factors, before
        )
        return (dx.reshape(shape) if needs[0] else None), dweight, dbias
    dx = dweight = dbias = None
    if needs[2] and activation is not None:
        dy_rows, dbias = masked_column_sums(dy_rows, y, places[2])
    elif needs[2]:
        dbias = column_sums(dy_rows, places[2])
    elif activation is not None:
        (dy_rows,) = relu.backward(dy_rows, y, (True,))
    if rows.dtype != dy_rows.dtype:
        (dy_rows,) = to_bf16(dy_rows)
    if needs[0]:
        dx = multiply(dy_rows, weight, factors=factors, plus=before).reshape(shape)
    if needs[1]:
        dweight = multiply(dy_rows.T, rows, factors=factors, into=places[1])
    return dx, dweight, dbias
