"""Sums over the rows of a matrix, in a fixed order: column_sums.cu."""

from __future__ import annotations

from typing import Any

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, blocks, real_of

SOURCE = Source("column_sums", "column_sums<{real}>")
ROWS_A_BLOCK = 128  # many rows are added up by many blocks, whose sums are added up in turn
MOST_PARTS = 1024  # of these sums; beyond, blocks take more rows


def column_sums(a: Any, b: Any = None) -> Any:
    """Σ_rows a, (N, C) -> (1, C); with b of the same shape (2, C): Σ_rows a and Σ_rows a·b."""
    jobs = 1 if b is None else 2
    rows, columns = a.shape
    a_block = max(ROWS_A_BLOCK, blocks(rows, MOST_PARTS))
    parts = max(1, blocks(rows, a_block))
    partial = cupy().empty((jobs, parts, columns), a.dtype)
    _launch(a, b, partial, rows, columns, a_block, 0)
    return partial.reshape(jobs, columns) if parts == 1 else sum_parts(partial)


def sum_parts(partial: Any) -> Any:
    """Σ over the second of three axes: (jobs, parts, columns) -> (jobs, columns)."""
    jobs, parts, columns = partial.shape
    out = cupy().empty((jobs, 1, columns), partial.dtype)
    _launch(partial, None, out, parts, columns, max(parts, 1), parts * columns if jobs > 1 else 0)
    return out.reshape(jobs, columns)


def _launch(a: Any, b: Any, out: Any, rows: int, columns: int, a_block: int, stride: int) -> None:
    jobs, parts = out.shape[:2]
    SOURCE.launch(
        f"column_sums<{real_of(a.dtype)}>",
        (blocks(columns, 32), parts, jobs),
        (32, 8),
        *(a, b, out, rows, columns, a_block, stride),
        dtype=a.dtype,
    )
