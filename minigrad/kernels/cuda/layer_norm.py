"""Layer normalization, alone and after a residual sum. Twin of `minigrad.ops.layer_norm`.

    y = w·x̂ + b,   x̂ = (x - μ)/σ,   μ = mean(x),   σ = √(var(x) + ε)    over the last axis

Shapes: x (..., C), weight w (C,) or None for 1, bias b (C,) or None for 0, y (..., C).

In forward and for dx, one warp computes one row. dw and db are sums over all rows in a fixed order,
by other blocks of the launch that computes dx.

Saved: x̂, 1/σ and w.
"""

from __future__ import annotations

from minigrad.device import cupy
from minigrad.kernels.cuda.columns import memory_of_parts, parts_of
from minigrad.kernels.cuda.compile import Source, blocks, dense, one_dtype, real_of
from minigrad.kernels.cuda.support import of_floats, of_rows
from minigrad.op import Array, Gradients, Needs, Places, Result, Saved

SOURCE = Source("layer_norm", "layer_norm_forward<{real}>", "layer_norm_backward<{real}>")
THREADS = 256
ROWS = THREADS // 32  # of a block


ADDS_TO = 0  # see minigrad.op


def supports(x: Array, weight: Array | None, bias: Array | None, *, eps: float) -> str | None:
    return of_floats(x, weight, bias) or of_rows(x)


def forward(x: Array, weight: Array | None, bias: Array | None, *, eps: float) -> Result:
    return _normalise(x, None, weight, bias, eps)


def backward(
    dy: Array, saved: Saved, needs: Needs, *, so_far: Array | None = None, eps: float
) -> Gradients:
    return backward_into(dy, saved, needs, (None, None, None), so_far=so_far, eps=eps)


def backward_into(
    dy: Array,
    saved: Saved,
    needs: Needs,
    places: Places,
    *,
    so_far: Array | None = None,
    eps: float,
) -> Gradients:
    normal, inverse_std, weight = saved  # (N, C), (N,), (C,)
    (rows, channels), dtype, xp = normal.shape, dy.dtype, cupy()
    dx = xp.empty((rows, channels), dtype) if needs[0] else None
    dweight, dbias = (
        (xp.empty(channels, dtype) if places[i] is None else places[i]) if needs[i] else None
        for i in (1, 2)
    )
    sums = int(needs[1]) + int(needs[2])
    parts, rows_a_part = parts_of(rows)
    blocks_of_sums = sums * parts * blocks(channels, 32)
    SOURCE.launch(
        f"layer_norm_backward<{real_of(dtype)}>",
        (blocks_of_sums + (blocks(rows, ROWS) if needs[0] else 0),),
        (THREADS,),
        *(dense(dy), normal, inverse_std, weight, dense(so_far), dx, dweight, dbias),
        *memory_of_parts(sums, parts, channels, dtype),
        *(rows, channels, parts, rows_a_part),
        dtype=dtype,
    )
    return None if dx is None else dx.reshape(dy.shape), dweight, dbias


class add_layer_norm:
    """y = LN(x + r), the norm of a residual sum. x and r get the same gradient."""

    @staticmethod
    def supports(
        x: Array, residual: Array, weight: Array | None, bias: Array | None, *, eps: float
    ) -> str | None:
        return of_floats(x, residual, weight, bias) or of_rows(x)

    @staticmethod
    def forward(
        x: Array, residual: Array, weight: Array | None, bias: Array | None, *, eps: float
    ) -> Result:
        return _normalise(x, residual, weight, bias, eps)

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


def _normalise(
    x: Array, residual: Array, weight: Array | None, bias: Array | None, eps: float
) -> Result:
    dtype = one_dtype("layer_norm", x, residual, weight, bias)
    _check_shapes(x, residual, weight, bias)
    xp, channels = cupy(), x.shape[-1]
    rows = x.size // channels if channels else 0
    y, normal = xp.empty(x.shape, dtype), xp.empty((rows, channels), dtype)
    inverse_std = xp.empty(rows, dtype)
    weight = dense(weight)
    SOURCE.launch(
        f"layer_norm_forward<{real_of(dtype)}>",
        (blocks(rows, ROWS),),
        (THREADS,),
        *(dense(x), dense(residual), weight, dense(bias), y, normal, inverse_std, rows, channels),
        float(eps),
        dtype=dtype,
    )
    return y, (normal, inverse_std, weight)


def _check_shapes(
    x: Array, residual: Array | None, weight: Array | None, bias: Array | None
) -> None:
    """Check the shapes, because a kernel would read past the end of an array that is too small."""
    if not x.ndim:
        raise ValueError("x has no last axis")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"a residual of shape {residual.shape} for x of shape {x.shape}")
    for vector in (weight, bias):
        if vector is not None and vector.shape != x.shape[-1:]:
            raise ValueError(f"weight or bias of shape {vector.shape} for x of shape {x.shape}")
