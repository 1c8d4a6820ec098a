"""The backward pass of a linear layer in one launch: linear_backward.cu.

    dx = dy W,   dW = dyᵀ x,   db = Σ_rows dy     with dy counted as 0 where y is not positive

For a small layer the launches themselves take most of the time. Here different blocks of one launch
compute dx and dW. They mask dy as they read it, so no masked copy is written. The blocks of dW also
sum db from the dy that they read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, blocks, real_of
from minigrad.kernels.cuda.scratch import counters
from minigrad.kernels.cuda.tiles import ROWS, THREADS, TILE, parts_of_sum
from minigrad.op import Needs, Places

SOURCE = Source(
    "linear_backward",
    "linear_backward_fma<{real}>",
    "linear_backward_tf32",
    "linear_backward_bf16",
)


def linear_backward(
    dy: Any,
    y: Any,
    x: Any,
    weight: Any,
    needs: Needs,
    places: Places,
    factors: str | None,
    so_far: Any = None,
) -> tuple[Any, Any, Any]:
    """dx (N, C_in), dW (C_out, C_in) and db (C_out,), or None for what is not needed.

    Args:
        dy: (N, C_out); y: (N, C_out), the output of ReLU, or None without ReLU.
        x: (N, C_in); weight: (C_out, C_in). All are C-contiguous and of one dtype.
        needs: db is only computed together with dW.
        places: output buffers for dW and db, or None; dx is always a new array.
        factors: what operands of float32 are rounded to, "fp32", "tf32" or "bf16".
        so_far: (N, C_in), C-contiguous, which is added to dx; or None.
    """
    (rows, c_in), c_out = x.shape, weight.shape[0]
    xp, dtype = cupy(), dy.dtype
    dx = xp.empty(x.shape, dtype) if needs[0] else None
    dweight = _place(needs[1], places[1], weight.shape, dtype)
    dbias = _place(needs[2], places[2], (c_out,), dtype)
    exact = dtype != np.float32 or factors == "fp32"
    height = TILE if exact else ROWS
    weight_tiles = blocks(c_out, height) * blocks(c_in, TILE) if needs[1] else 0
    input_tiles = blocks(rows, height) * blocks(c_in, TILE) if needs[0] else 0
    parts, rows_a_part = parts_of_sum(rows, weight_tiles)
    partial = count = None
    if parts > 1 and needs[1]:
        partial, count = (
            xp.empty((parts, blocks(c_out * (c_in + 1), 4) * 4), dtype),
            counters(weight_tiles),
        )
    SOURCE.launch(
        f"linear_backward_fma<{real_of(dtype)}>" if exact else f"linear_backward_{factors}",
        (weight_tiles * parts + input_tiles,),
        (THREADS,),
        *(dy, y, x, weight, so_far, dx, dweight, dbias, partial, count),
        *(rows, c_in, c_out, parts, rows_a_part),
        dtype=dtype,
    )
    return dx, dweight, dbias


def _place(needed: bool, place: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    if not needed:
        return None
    return cupy().empty(shape, dtype) if place is None else place
