"""Sums over the rows of a matrix, in a fixed order and one launch: column_sums.cu."""

from __future__ import annotations

from typing import Any

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, blocks, real_of
from minigrad.kernels.cuda.scratch import counters

SOURCE = Source("column_sums", "column_sums<{real}>")
ROWS_A_BLOCK = 128  # many rows are added up by many blocks, whose sums are added up in turn
MOST_PARTS = 1024  # of these sums; beyond, blocks take more rows


def column_sums(a: Any, into: Any = None) -> Any:
    """Σ_rows a, (N, C) -> (C,).

    Args:
        into: (C,) of the same dtype to write to, or None for a new array.
    """
    sums = _place(into, a)
    _launch(a, None, None, None, sums, None)
    return sums


def column_sums_and_products(
    a: Any, b: Any, into: Any = None, products_into: Any = None
) -> tuple[Any, Any]:
    """Σ_rows a and Σ_rows a·b, (N, C) and (N, C) -> (C,) and (C,)."""
    sums, products = _place(into, a), _place(products_into, a)
    _launch(a, b, None, None, sums, products)
    return sums, products


def masked_column_sums(a: Any, y: Any, into: Any = None) -> tuple[Any, Any]:
    """a where y > 0 and 0 elsewhere, (N, C), and the sums over the rows of that, (C,)."""
    masked, sums = cupy().empty(a.shape, a.dtype), _place(into, a)
    _launch(a, None, y, masked, sums, None)
    return masked, sums


def sum_parts(partial: Any, into: Any = None) -> Any:
    """Σ over the first of two axes that is short: (parts, C) -> (C,)."""
    sums = _place(into, partial)
    _launch(partial, None, None, None, sums, None, a_block=max(1, partial.shape[0]))
    return sums


def _place(into: Any, a: Any) -> Any:
    return cupy().empty(a.shape[1], a.dtype) if into is None else into


def _launch(
    a: Any, b: Any, y: Any, masked: Any, sums: Any, products: Any, a_block: int | None = None
) -> None:
    rows, columns = a.shape
    if a_block is None:
        a_block = max(ROWS_A_BLOCK, blocks(rows, MOST_PARTS))
    parts, jobs = max(1, blocks(rows, a_block)), (sums is not None) + (products is not None)
    grid = (blocks(columns, 32), parts, jobs)
    partial = count = None
    if parts > 1:
        partial = cupy().empty((jobs, parts, columns), a.dtype)
        count = counters(grid[0] * jobs)
    SOURCE.launch(
        f"column_sums<{real_of(a.dtype)}>",
        grid,
        (32, 8),
        *(a, b, y, masked, sums, products, partial, count, rows, columns, a_block),
        dtype=a.dtype,
    )
