"""Workspaces: memory that a kernel uses while it runs, reused by later kernels.

Kernels of one stream run one after another, so they can share a workspace. Kernels of different
streams cannot, so each stream has its own. Its address stays the same while the stream exists,
because a captured graph keeps using the workspace of the stream that it was captured on. Two graphs
captured on one stream must therefore not run at once. `forget_stream` frees a stream's workspace.

The memory comes from CuPy's default pool, even while another pool is in use, because a graph's own
pool has to be empty when the graph is deleted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import cupy

WORKSPACE = 32 * 2**20  # bytes, as cuBLAS recommends for compute capability 9.0
COUNTERS = 2**16

_kept: dict[tuple[Any, ...], Any] = {}


def counters(number: int) -> Any:
    """`COUNTERS` uint32, all 0. A kernel that counts with them sets them back to 0.

    Raises:
        ValueError: `number` is larger than `COUNTERS`.
        RuntimeError: the stream has none yet and is capturing: its graph would have to zero them.
    """
    if number > COUNTERS:
        raise ValueError(f"{number} counters; there are {COUNTERS}")
    return _of_stream("counters", COUNTERS, np.uint32)


def workspace() -> Any:
    """`WORKSPACE` bytes.

    Raises:
        RuntimeError: the stream has none yet and is capturing.
    """
    return _of_stream("workspace", WORKSPACE, np.uint8)


def _of_stream(purpose: str, size: int, dtype: Any) -> Any:
    xp = cupy()
    stream = xp.cuda.get_current_stream()
    key = (xp, xp.cuda.Device().id, stream.ptr, purpose)
    if key not in _kept:
        if stream.is_capturing():
            raise RuntimeError(
                f"the first kernel of this stream that needs {purpose} is being captured: run the "
                "function once on the stream before it is captured"
            )
        with xp.cuda.using_allocator(xp.get_default_memory_pool().malloc):
            _kept[key] = xp.zeros(size, dtype)
    return _kept[key]


def forget_stream(xp: Any, gpu: int, pointer: int) -> None:
    """Free the workspace of a stream that has finished."""
    for key in [key for key in _kept if key[:3] == (xp, gpu, pointer)]:
        del _kept[key]
