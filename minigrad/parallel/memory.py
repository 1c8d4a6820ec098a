"""Keeping freed memory for the next step, and giving it back."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # what glibc accepts on 64-bit systems
_NEVER_TRIM = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library to keep memory that is freed, instead of giving it back to the system.

    A training step frees all its activations and the next one asks for the same sizes again. If
    they come from the system anew, it must clear each page and map it at first touch: a seventh of
    a step of the default model. Does nothing where the C library is not glibc.

    Returns:
        True if the library agreed.
    """
    mallopt = _libc("mallopt")
    if mallopt is None:
        return False
    kept = mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    return bool(kept and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))


def release_freed_memory() -> None:
    """Give back what `keep_freed_memory` has kept, for example after trying out large sizes."""
    malloc_trim = _libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _libc(function: str) -> Any | None:
    """A function of glibc, None where that is not the C library."""
    if sys.platform != "linux":
        return None
    try:
        return getattr(ctypes.CDLL(None), function)
    except (OSError, AttributeError):
        return None
