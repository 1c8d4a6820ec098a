"""Sums over the rows of a matrix, in a fixed order and one launch: column_sums.cu."""

from __future__ import annotations

from typing import Any

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, blocks, real_of
from minigrad.kernels.cuda.scratch import counters

SOURCE = Source("column_sums", "column_sums<{real}>")
ROWS_A_BLOCK = 128  # with more rows, several blocks each sum a part; then the parts are summed
MOST_PARTS = 1024  # with more rows than this allows, each block sums more rows


def column_sums(a: Any, into: Any = None) -> Any:
    """Σ_rows a, (N, C) -> (C,).

    Args:
        into: (C,) of the same dtype to write to, or None for a new array.
    """
    return _launch(a, None, None, into, *parts_of(a.shape[0]))


def masked_column_sums(a: Any, y: Any, into: Any = None) -> tuple[Any, Any]:
    """a where y > 0 and 0 elsewhere, (N, C), and the sums over the rows of that, (C,)."""
    masked = cupy().empty(a.shape, a.dtype)
    return masked, _launch(a, y, masked, into, *parts_of(a.shape[0]))


def sum_parts(partial: Any, into: Any = None) -> Any:
    """Σ over a short first axis, by one block for each 32 columns: (parts, C) -> (C,)."""
    return _launch(partial, None, None, into, 1, max(1, partial.shape[0]))


def parts_of(rows: int) -> tuple[int, int]:
    """The number of parts that the rows are split into, and the number of rows in a part."""
    a_part = max(ROWS_A_BLOCK, blocks(rows, MOST_PARTS))
    return max(1, blocks(rows, a_part)), a_part


def memory_of_parts(jobs: int, parts: int, columns: int, dtype: Any) -> tuple[Any, Any]:
    """Memory for the partial sums of `jobs` column sums, and their counters; None if not needed."""
    if parts == 1 or jobs == 0:
        return None, None
    partial = cupy().empty((jobs, parts, columns), dtype)
    return partial, counters(jobs * blocks(columns, 32))


def _launch(a: Any, y: Any, masked: Any, into: Any, parts: int, a_part: int) -> Any:
    rows, columns = a.shape
    sums = cupy().empty(columns, a.dtype) if into is None else into
    SOURCE.launch(
        f"column_sums<{real_of(a.dtype)}>",
        (blocks(columns, 32), parts),
        (256,),
        *(a, y, masked, sums, *memory_of_parts(1, parts, columns, a.dtype)),
        *(rows, columns, a_part),
        dtype=a.dtype,
    )
    return sums
