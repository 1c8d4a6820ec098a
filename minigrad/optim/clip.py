"""Limiting the norm of the gradients."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np

from minigrad.device import device_of
from minigrad.dtypes import compute_dtype, widened
from minigrad.errors import NonFiniteError
from minigrad.optim.flat import merged
from minigrad.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, *, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients in place so that their joint 2-norm is at most `max_norm`.

    Pascanu, Mikolov and Bengio, arXiv:1211.5063. As PyTorch, the scale is max_norm/(norm + 1e-6)
    where that is below 1. If the norm is NaN, so are all gradients afterwards; if it is infinite,
    they are 0 or NaN.

    Args:
        parameters: those without a gradient are passed over.
        max_norm: the limit; infinity only measures.
        error_if_nonfinite: raise if the norm is NaN or infinite, before any gradient is changed.

    Returns:
        The norm before clipping.

    Raises:
        NonFiniteError: see `error_if_nonfinite`.
    """
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    arrays = [p.grad.array for p in given if p.grad is not None]
    if not arrays:
        return 0.0
    flat = merged(arrays)
    if flat is not None:
        arrays = [flat]
    total = sum(map(_sum_of_squares, arrays))
    norm = sqrt(total) if isfinite(total) and total >= 0 else total
    if error_if_nonfinite and not isfinite(norm):
        raise NonFiniteError(
            f"the norm of the gradients is {norm}; run the step under minigrad.detect_nan() to "
            "see where it comes from",
            op="clip_grad_norm_",
            phase="backward",
            module="",
        )
    scale = clip_scale(norm, max_norm)
    if scale != 1:
        for array in arrays:
            with device_of(array).in_use():
                array *= compute_dtype(array.dtype).type(scale)
    return norm


def _sum_of_squares(array: Any) -> float:
    """In the array's dtype, or float32 for float16, if that is wide enough for the squares.

    On a GPU in float64, and without `dot`, for which CuPy would load cuBLAS.
    """
    if not isinstance(array, np.ndarray):
        with device_of(array).in_use():
            return float(np.square(array).sum(dtype=np.float64))
    rows = widened(array.reshape(-1))
    total = float(np.dot(rows, rows))
    if not isfinite(total):
        rows = rows.astype(np.float64)
        total = float(np.dot(rows, rows))
    return total


def clip_scale(norm: float, max_norm: float) -> float:
    """What gradients of this norm are multiplied by so that their norm is at most `max_norm`.

    NaN if the norm is, and 1 if `max_norm` is infinite.
    """
    scale = 1.0 if max_norm == inf else max_norm / (norm + 1e-6)
    return 1.0 if scale >= 1 else scale  # a NaN is not
