"""Which inputs the CUDA kernels accept.

Every kernel in `minigrad.kernels.cuda.KERNELS` has a function

    supports(*arrays, **statics) -> None, or the reason why the textbook has to run instead

which the engine calls before each op on a GPU. It checks dtypes and sizes only. For shapes that do
not fit together it returns None, and the kernel raises ValueError.
"""

from __future__ import annotations

from typing import Any

from minigrad.kernels.cuda.compile import ID, REAL

LARGEST = 2**31 - 2**10  # below the largest int by at least the largest tile
MOST_BLOCKS = 65_535  # along the second and third axis of a grid


def of_floats(*arrays: Any) -> str | None:
    """None if all arrays are float32 or all are float64, and not too long; else the reason."""
    dtype = None
    for array in arrays:
        if array is None:
            continue
        if array.dtype.char not in REAL:
            return f"it computes in float32 and float64, not in {array.dtype}"
        if dtype is not None and array.dtype != dtype:
            return f"it takes arrays of one dtype, not of {dtype} and {array.dtype}"
        if max(array.shape, default=0) > LARGEST:
            return f"it counts up to {LARGEST:,} along an axis"
        dtype = array.dtype
    return None


def of_ids(ids: Any) -> str | None:
    """None if ids are int32 or int64, and not too many; else the reason."""
    if ids.dtype.char not in ID:
        return f"it reads ids of int32 and int64, not of {ids.dtype}"
    return f"it counts up to {LARGEST:,} ids" if ids.size > LARGEST else None


def of_rows(array: Any) -> str | None:
    """None if an array (..., C) has not too many rows; else the reason."""
    rows = array.size // array.shape[-1] if array.ndim and array.shape[-1] else 0
    return f"it counts up to {LARGEST:,} rows" if rows > LARGEST else None
