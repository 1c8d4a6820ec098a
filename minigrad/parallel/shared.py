"""Memory that a process shares with the children it forks."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


def shared_array(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of zeros whose memory this process shares with children that it forks later.

    The memory is anonymous: it has no name that could be left behind, and the system takes it back
    when the last process that uses it ends, however it ends.
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = mmap.mmap(-1, max(size, 1))
    return np.ndarray(shape, dtype, buffer=memory)
