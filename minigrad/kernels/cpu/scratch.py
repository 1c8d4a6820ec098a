"""Reusable memory for temporaries that do not outlive a kernel call.

A fresh large array costs page faults (the system hands out zeroed pages, a fault for every 4 KB)
and lies cold in memory. A temporary that is reused is neither.
"""

import threading
from math import prod

import numpy as np


class _Buffers(threading.local):
    """Each thread's buffers, by name and dtype."""

    def __init__(self) -> None:
        self.by_key: dict[tuple[str, np.dtype], np.ndarray] = {}


_BUFFERS = _Buffers()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array of `shape`, valid until the next call with this name.

    The memory belongs to this thread, grows to the largest request and is never given back. So a
    kernel must not return it, save it, or ask for the same name twice.
    """
    size = prod(shape)
    buffer = _BUFFERS.by_key.get((name, dtype))
    if buffer is None or buffer.size < size:
        buffer = _BUFFERS.by_key[name, dtype] = np.empty(size, dtype)
    return buffer[:size].reshape(shape)


def clear() -> None:
    """Give this thread's buffers back."""
    _BUFFERS.by_key.clear()
