"""Batches of windows of a token stream, gathered where the tokens lie: windows.cu.

x[b, t] = tokens[s + t],   y[b, t] = tokens[s + t + 1],   s = starts[cursor + first + b]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, blocks, size_of

SOURCE = Source("windows", "gather_windows", package=__package__)
THREADS = 256


def gather(
    tokens: Any, starts: Any, cursor: Any, *, first: int, rows: int, time: int
) -> tuple[Any, Any]:
    """Inputs and targets, (rows, time) int64 each.

    Args:
        tokens: (N,) int32.
        starts: (M,) int64, where windows begin; those that leave the tokens give ids of -1.
        cursor: (1,) int64 on the device, an index into `starts`.
        first: is added to the cursor.
    """
    xp = cupy()
    x, y = xp.empty((rows, time), np.int64), xp.empty((rows, time), np.int64)
    SOURCE.launch(
        "gather_windows",
        (blocks(rows * time, THREADS),),
        (THREADS,),
        *(tokens, starts, cursor, x, y, size_of(tokens), size_of(starts), first, rows, time),
    )
    return x, y
