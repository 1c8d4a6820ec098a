"""A reusable workspace for temporaries that do not outlive a kernel call.

A new large array costs page faults (the system gives out zeroed pages, with a fault for every 4 KB)
and is not in the cache. A temporary that is reused avoids both.
"""

from math import prod

import numpy as np

from minigrad.state import STATE


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array of `shape`, valid until the next call with this name.

    The memory belongs to this thread, grows to the largest request and is never freed. So a
    kernel must not return it, save it, or ask for the same name twice.
    """
    size = prod(shape)
    buffer = STATE.buffers.get((name, dtype))
    if buffer is None or buffer.size < size:
        buffer = STATE.buffers[name, dtype] = np.empty(size, dtype)
    return buffer[:size].reshape(shape)


def clear() -> None:
    """Give this thread's buffers back."""
    STATE.buffers.clear()
