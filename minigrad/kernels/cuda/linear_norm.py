"""A linear layer, a residual sum and layer norm. Twin of `minigrad.ops.linear_norm`.

    y = w·x̂ + b,   x̂ = normalized (x Wᵀ + bias + residual)

Shapes: x (..., C_in), W (C, C_in), bias (C,) or None, residual (..., C), w and b (C,) or None,
y (..., C).

Forward is one launch if our own kernels compute the matmul and C fits a tile, because then a block
has whole rows. Otherwise the kernels of `linear` and `add_layer_norm` run one after the other.
Backward always uses these two.

Saved: what these two save.
"""

from __future__ import annotations

from minigrad.device import cupy
from minigrad.kernels.cuda import layer_norm, linear
from minigrad.kernels.cuda.compile import Source, blocks, dense, one_dtype, real_of
from minigrad.kernels.cuda.gemm import factors_of, uses_cublaslt
from minigrad.kernels.cuda.support import of_floats, of_rows
from minigrad.kernels.cuda.tiles import ROWS, THREADS, TILE
from minigrad.op import Array, Gradients, Needs, Places, Result, Saved

SOURCE = Source("linear_norm", "linear_norm_fma<{real}>", "linear_norm_tf32", "linear_norm_bf16")
ADDS_TO = 0  # see minigrad.op


def supports(
    x: Array,
    weight: Array,
    bias: Array | None,
    residual: Array,
    gain: Array | None,
    shift: Array | None,
    *,
    eps: float,
) -> str | None:
    return of_floats(x, weight, bias, residual, gain, shift) or of_rows(x) or of_rows(residual)


def forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    residual: Array,
    gain: Array | None,
    shift: Array | None,
    *,
    eps: float,
) -> Result:
    channels, inputs = weight.shape
    if channels > TILE or uses_cublaslt(x.size * channels):
        y, saved = linear.forward(x, weight, bias)
        z, saved_norm = layer_norm.add_layer_norm.forward(y, residual, gain, shift, eps=eps)
        return z, (saved, saved_norm)
    if x.shape[-1:] != (inputs,) or residual.shape != (*x.shape[:-1], channels):
        raise ValueError(f"x of shape {x.shape}, weight {weight.shape}, residual {residual.shape}")
    for vector in (bias, gain, shift):
        if vector is not None and vector.shape != (channels,):
            raise ValueError(f"a bias or weight of shape {vector.shape} for {channels} channels")
    dtype, factors, xp = one_dtype("linear_norm", x, weight, bias, residual), factors_of(x), cupy()
    rows, weight = dense(x).reshape(-1, inputs), dense(weight)
    normal, inverse_std = xp.empty((len(rows), channels), dtype), xp.empty(len(rows), dtype)
    y = xp.empty(residual.shape, dtype)
    exact = factors in (None, "fp32")
    SOURCE.launch(
        f"linear_norm_fma<{real_of(dtype)}>" if exact else f"linear_norm_{factors}",
        (blocks(len(rows), TILE if exact else ROWS),),
        (THREADS,),
        *(rows, weight, dense(bias), dense(residual), dense(gain), dense(shift)),
        *(y, normal, inverse_std, len(rows), inputs, channels, float(eps)),
        dtype=dtype,
    )
    return y, ((x.shape, rows, weight, None, factors), (normal, inverse_std, gain))


def backward(
    dy: Array, saved: Saved, needs: Needs, *, so_far: Array | None = None, eps: float
) -> Gradients:
    return backward_into(dy, saved, needs, (None,) * 6, so_far=so_far, eps=eps)


def backward_into(
    dy: Array,
    saved: Saved,
    needs: Needs,
    places: Places,
    *,
    so_far: Array | None = None,
    eps: float,
) -> Gradients:
    of_linear, of_norm = saved
    wanted = any(needs[:4])
    dsum, dgain, dshift = layer_norm.backward_into(
        dy, of_norm, (wanted, *needs[4:]), (None, *places[4:]), eps=eps
    )
    gradients: Gradients = (None, None, None)
    if any(needs[:3]):
        gradients = linear.backward_into(dsum, of_linear, needs[:3], places[:3], so_far=so_far)
    return *gradients, dsum if needs[3] else None, dgain, dshift
