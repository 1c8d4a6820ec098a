"""Memory that kernels use while they run, kept for the next one.

Kernels of one stream run one after another and may share it; those of two streams may not, so each
stream has its own. Its address does not change for as long as the stream lives, because a captured
graph goes on using the memory of the stream that it was captured on: two such graphs must not run
at once. Whoever ends a stream says so (`forget_stream`).

It comes from CuPy's default pool, whatever pool is in use: a graph's own pool has to be empty when
the graph is dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import cupy

WORKSPACE = 32 * 2**20  # bytes, what cuBLAS recommends for the GPUs of today
COUNTERS = 2**16

_kept: dict[tuple[Any, ...], Any] = {}


def counters(number: int) -> Any:
    """`COUNTERS` uint32 that are 0. A kernel that counts in them leaves them at 0.

    Raises:
        ValueError: a kernel wants more.
        RuntimeError: the stream is capturing and has none: its graph would have to zero them.
    """
    if number > COUNTERS:
        raise ValueError(f"{number} counters; there are {COUNTERS}")
    return _of_stream("counters", COUNTERS, np.uint32)


def workspace() -> Any:
    """`WORKSPACE` bytes.

    Raises:
        RuntimeError: the stream is capturing and has none.
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
    """Give back the memory of a stream that has done its work."""
    for key in [key for key in _kept if key[:3] == (xp, gpu, pointer)]:
        del _kept[key]
