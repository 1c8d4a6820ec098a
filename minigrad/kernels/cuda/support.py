"""What the CUDA kernels take, as reasons why they do not.

Every rule in `minigrad.kernels.cuda.KERNELS` has a function

    supports(*arrays, **statics) -> None, or the reason why the textbook has to run instead

which the engine asks before each op on a GPU. It looks at dtypes and sizes alone. Shapes that make
no sense are no reason: the kernel raises ValueError for them.
"""

from __future__ import annotations

from typing import Any

from minigrad.kernels.cuda.compile import ID, REAL

LARGEST = 2**31 - 2**10  # what ints count, less the largest tile
MOST_BLOCKS = 65_535  # along the later axes of a grid


def of_floats(*arrays: Any) -> str | None:
    """Whether all arrays are of float32, or all of float64, with sizes that kernels can count."""
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
    """Whether ids are of int32 or int64, and not too many."""
    if ids.dtype.char not in ID:
        return f"it reads ids of int32 and int64, not of {ids.dtype}"
    return f"it counts up to {LARGEST:,} ids" if ids.size > LARGEST else None


def of_rows(array: Any) -> str | None:
    """Whether the rows of an array (..., C) are not too many."""
    rows = array.size // array.shape[-1] if array.ndim and array.shape[-1] else 0
    return f"it counts up to {LARGEST:,} rows" if rows > LARGEST else None
