"""Feature-major memory: an array of shape (..., C) that is stored as (C, N), each row contiguous.

N = product of the leading axes. What is per feature (a bias, a head's queries) is then a contiguous
block of rows, and what is per position (a mean, a soft-max sum) is a reduction over axis 0, which
NumPy does with one vector addition a row. Over a short last axis it would start anew for each
position. BLAS takes either order at the same speed, so that linear layers need no copies.
"""

from functools import lru_cache

import numpy as np

CROWDED = 1024  # bytes: rows that lie a multiple of it apart get in each other's way
ROW_GAP = 16  # elements


def as_rows(x: np.ndarray) -> np.ndarray:
    """(..., C) -> (C, N): a view if x is feature-major or C-contiguous, otherwise of a copy.

    Either order of memory is possible. It is what matrix products take.
    """
    return x.reshape(-1, x.shape[-1]).T


def as_feature_major(x: np.ndarray) -> np.ndarray:
    """(..., C) -> (C, N) of contiguous rows: a view if x is feature-major, otherwise a copy."""
    rows = as_rows(x)
    return rows if rows.strides[1] == rows.itemsize else np.ascontiguousarray(rows)


def empty_rows(lead: tuple[int, ...], positions: int, dtype: np.dtype) -> np.ndarray:
    """Uninitialised (*lead, N) of contiguous rows, with a gap after each where one helps.

    Rows that lie a large power of two apart conflict in the cache: a column of such a matrix, as
    matmuls and transpositions read it, evicts itself. So rows are padded.
    """
    apart = positions + ROW_GAP if positions * dtype.itemsize % CROWDED == 0 else positions
    return np.empty((*lead, apart), dtype)[..., :positions]


def as_logical(rows: np.ndarray, lead: tuple[int, ...]) -> np.ndarray:
    """(C, N) -> (*lead, C), a view."""
    return rows.T.reshape(*lead, rows.shape[0]) if len(lead) != 1 else rows.T


@lru_cache(maxsize=256)
def constant(value: float, size: int, dtype: np.dtype) -> np.ndarray:
    """A read-only vector. Multiplied with, it sums or averages in one BLAS call."""
    vector = np.full(size, value, dtype)
    vector.flags.writeable = False
    return vector
