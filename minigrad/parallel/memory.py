"""Memory: shared with child processes, kept for the next step, in large pages, and freed."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
from typing import Any

import numpy as np

from minigrad.kernels.cpu import scratch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # what glibc accepts on 64-bit systems
_NEVER_TRIM = 2**31 - 1
_HUGE_PAGE = 2 * 2**20  # bytes; of x86-64, and of ARM with pages of 4 KB
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25  # of Linux's mman.h


def shared_array(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of zeros whose memory this process shares with children that it forks later.

    The memory is anonymous: it has no name that could be left behind, and the system takes it back
    when the last process that uses it ends, however it ends.
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = mmap.mmap(-1, max(size, 1))
    return np.ndarray(shape, dtype, buffer=memory)


def forget(array: np.ndarray, part: slice) -> None:
    """Give memory of a `shared_array` back to the system, as far as whole pages are in this part.

    What was there is lost. Where the system cannot do that, it stays.
    """
    memory = array.base
    remove = getattr(mmap, "MADV_REMOVE", None)
    if not isinstance(memory, mmap.mmap) or remove is None:
        return
    page = mmap.PAGESIZE
    start = -(-part.start * array.itemsize // page) * page
    stop = part.stop * array.itemsize // page * page
    if stop > start:
        with contextlib.suppress(OSError):
            memory.madvise(remove, start, stop - start)


def keep_freed_memory() -> bool:
    """Ask the C library to keep memory that is freed, instead of giving it back to the system.

    A training step frees all its activations and the next one needs the same sizes again. If the
    system gives new memory, it must clear and map each page: a seventh of a step's time for the
    default model. It does nothing if the C library is not glibc.

    Returns:
        True if the library agreed.
    """
    mallopt = _libc("mallopt")
    if mallopt is None:
        return False
    kept = mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    return bool(kept and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))


def release_freed_memory() -> None:
    """Free what `keep_freed_memory` has kept, for example after trying out large sizes.

    The kernels' workspace of this thread, which is as large as they needed, is freed as well.
    """
    scratch.clear()
    malloc_trim = _libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def use_huge_pages() -> bool:
    """Ask the system to put the present heap into pages of 2 MB.

    The processor then looks up fewer pages, which saves two or three percent of a training step,
    and more in virtual machines. Needs Linux 6.1 and its setting
    /sys/kernel/mm/transparent_hugepage/enabled not to be "never". Call it when the heap has grown
    to the size that it will have.

    Returns:
        True if the system did so.
    """
    madvise = _libc("madvise")
    heap = _heap()
    if madvise is None or heap is None:
        return False
    start, stop = -(-heap[0] // _HUGE_PAGE) * _HUGE_PAGE, heap[1] // _HUGE_PAGE * _HUGE_PAGE
    if stop <= start:
        return False
    place = ctypes.c_void_p(start), ctypes.c_size_t(stop - start)
    return all(madvise(*place, advice) == 0 for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE))


def _heap() -> tuple[int, int] | None:
    """Where the C library's heap begins and ends."""
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8") as file:
        for line in file:
            if line.rstrip().endswith("[heap]"):
                start, _, stop = line.split()[0].partition("-")
                return int(start, 16), int(stop, 16)
    return None


def _libc(function: str) -> Any | None:
    """A function of glibc, None where that is not the C library."""
    if sys.platform != "linux":
        return None
    try:
        return getattr(ctypes.CDLL(None), function)
    except (OSError, AttributeError):
        return None
