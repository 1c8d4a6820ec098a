"""Arrays of bfloat16, stored as uint16, because NumPy and CuPy have no such dtype: bf16.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, blocks, dense, element_blocks, size_of

SOURCE = Source("bf16", "to_bf16", "from_bf16")
THREADS = 256


def to_bf16(*arrays: Any) -> tuple[Any, ...]:
    """Round one or two arrays of float32 to bfloat16 (half to even), in one launch.

    The transpose of a C-contiguous array becomes the transpose of a C-contiguous array.
    """
    memories = [_memory(array) for array in arrays]
    outs = [cupy().empty(memory.shape, np.uint16) for memory in memories]
    arguments = [(m, out, size_of(m)) for m, out in zip(memories, outs, strict=True)]
    if len(arrays) == 1:
        arguments.append((None, None, np.uint64(0)))
    size = sum(memory.size for memory in memories)
    grid = (element_blocks(blocks(size, 8)),)  # eight numbers a thread, at least
    SOURCE.launch("to_bf16", grid, (THREADS,), *arguments[0], *arguments[1])
    return tuple(
        [
            out if out.shape == a.shape and a.flags.c_contiguous else out.T
            for a, out in zip(arrays, outs, strict=True)
        ]
    )


def from_bf16(array: Any) -> Any:
    """An array of bfloat16 as float32."""
    memory = _memory(array)
    out = cupy().empty(memory.shape, np.float32)
    arguments = (memory, out, size_of(memory))
    SOURCE.launch("from_bf16", (element_blocks(memory.size),), (THREADS,), *arguments)
    return out if array.flags.c_contiguous else out.T


def _memory(array: Any) -> Any:
    """The C-contiguous array over the same memory, or a copy if there is none."""
    return array.T if array.T.flags.c_contiguous and not array.flags.c_contiguous else dense(array)
