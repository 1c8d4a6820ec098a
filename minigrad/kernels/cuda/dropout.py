"""Dropout, and masks from a counter-based generator. Twin of `minigrad.ops.dropout`.

    y = x·keep/(1 - p),   dx = dy·keep/(1 - p)

Shapes: x (...), keep (...) booleans, True with probability 1 - p.

Saved: the mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import (
    Source,
    blocks,
    dense,
    element_blocks,
    real_of,
    size_of,
)
from minigrad.kernels.cuda.support import of_floats
from minigrad.op import Array, Gradients, Needs, Result, Shape

SOURCE = Source("dropout", "dropout_apply<{real}>", "philox_keep")
THREADS = 256


def supports(x: Array, keep: Array, *, p: float) -> str | None:
    if keep.dtype != np.bool_:
        return f"it takes a mask of booleans, not of {keep.dtype}"
    if keep.size > x.size:
        return "it takes a mask that is no larger than x"
    return of_floats(x)


def forward(x: Array, keep: Array, *, p: float) -> Result:
    keep = dense(cupy().broadcast_to(keep, x.shape))
    return _apply(dense(x), keep, p), keep


def backward(dy: Array, keep: Any, needs: Needs, *, p: float) -> Gradients:
    return _apply(dense(dy), keep, p), None


def _apply(x: Array, keep: Array, p: float) -> Array:
    y = cupy().empty(x.shape, x.dtype)
    SOURCE.launch(
        f"dropout_apply<{real_of(x.dtype)}>",
        (element_blocks(x.size),),
        (THREADS,),
        *(x, keep, y, size_of(x), 1 / (1 - p)),
        dtype=x.dtype,
    )
    return y


def keep_mask(
    shape: Shape, p: float, *, seed: int, step: Any, ahead: int = 0, stream: int = 0
) -> Any:
    """Booleans (shape), True with probability 1 - p, from Philox4x32-10 on the device.

    Each number is a function of seed, step, stream and its index. So there is no state to keep, and
    a captured graph draws new masks as the step advances.

    Args:
        p: the probability of False.
        seed: 0 to 2⁶⁴ - 1.
        step: one uint32 on the device.
        ahead: a number added to the step, 0 to 2³² - 1.
        stream: a different number for each mask of one step, 0 to 2³² - 1.

    Raises:
        OverflowError: seed or stream is out of range.
    """
    keep = cupy().empty(shape, np.bool_)
    if not 0 <= seed < 2**64:
        raise OverflowError(f"the seed must be in [0, 2**64), not {seed}")
    key = (np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32))
    SOURCE.launch(
        "philox_keep",
        (blocks(keep.size, 4 * THREADS),),
        (THREADS,),
        *(keep, step, size_of(keep), *key, np.uint32(ahead), np.uint32(stream), float(p)),
    )
    return keep
