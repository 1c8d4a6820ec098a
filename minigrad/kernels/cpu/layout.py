"""Feature-major memory: an array of shape (..., C) that is stored as (C, N), each row contiguous.

N = product of the leading axes. Values per feature (a bias, a head's queries) are then contiguous
rows. Values per position (a mean, a softmax sum) are reductions over axis 0, which NumPy computes
with one vector addition a row; over a short last axis it would start again for each position. BLAS
is equally fast with either order, so that linear layers need no copies.
"""

from functools import lru_cache

import numpy as np

CROWDED = 1024  # bytes: rows whose distance is a multiple of it conflict in the cache
ROW_GAP = 16  # elements


def as_rows(x: np.ndarray) -> np.ndarray:
    """(..., C) -> (C, N): a view if x is feature-major or C-contiguous, otherwise of a copy.

    Either order of memory is possible, as matmuls accept both.
    """
    return x.reshape(-1, x.shape[-1]).T


def as_feature_major(x: np.ndarray) -> np.ndarray:
    """(..., C) -> (C, N) of contiguous rows: a view if x is feature-major, otherwise a copy."""
    rows = as_rows(x)
    return rows if rows.strides[1] == rows.itemsize else np.ascontiguousarray(rows)


def empty_rows(lead: tuple[int, ...], positions: int, dtype: np.dtype) -> np.ndarray:
    """Uninitialised (*lead, N) of contiguous rows, with a gap after each where one helps.

    Power-of-two strides cause cache conflicts: the elements of a column, which matmuls and
    transpositions read, evict each other. So rows are padded.
    """
    apart = positions + ROW_GAP if positions * dtype.itemsize % CROWDED == 0 else positions
    return np.empty((*lead, apart), dtype)[..., :positions]


def as_logical(rows: np.ndarray, lead: tuple[int, ...]) -> np.ndarray:
    """(C, N) -> (*lead, C), a view."""
    return rows.T.reshape(*lead, rows.shape[0]) if len(lead) != 1 else rows.T


@lru_cache(maxsize=256)
def constant(value: float, size: int, dtype: np.dtype) -> np.ndarray:
    """A read-only vector. A product with it sums or averages in one BLAS call."""
    vector = np.full(size, value, dtype)
    vector.flags.writeable = False
    return vector
