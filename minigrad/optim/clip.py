"""Gradient clipping, by the norm of all gradients or by value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, isfinite, isnan, nan, sqrt
from typing import Any

import numpy as np

from minigrad.device import device_of, namespace_of
from minigrad.dtypes import compute_dtype, widened
from minigrad.errors import NonFiniteError
from minigrad.optim.groups import listed
from minigrad.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    *,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale all gradients in place so that their joint norm is at most `max_norm`.

    Pascanu, Mikolov and Bengio, arXiv:1211.5063. As in PyTorch, the scale is max_norm/(norm + 1e-6)
    where that is below 1. If the norm is NaN, all gradients become NaN; if it is infinite, they
    become 0 or NaN.

    Args:
        parameters: those without a gradient are skipped.
        max_norm: the limit; with infinity the norm is only computed.
        norm_type: p of the norm (Σ|g|ᵖ)^(1/p); infinity means the largest |g|.
        error_if_nonfinite: raise if the norm is NaN or infinite, before any gradient is changed.

    Returns:
        The norm before clipping.

    Raises:
        ValueError: `norm_type` is not positive, or `max_norm` is negative or NaN.
        NonFiniteError: see `error_if_nonfinite`.
    """
    if not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: norm_type must be positive, it is {norm_type}")
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must not be negative, it is {max_norm}")
    arrays = _gradients(parameters)
    norm = gradient_norm(arrays, norm_type)
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


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip every element of the gradients to [-clip_value, clip_value], in place.

    Args:
        parameters: those without a gradient are skipped.
        clip_value: the limit, not negative. NaN stays NaN.

    Raises:
        ValueError: the limit is negative or NaN.
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: the limit must not be negative, it is {clip_value}")
    for array in _gradients(parameters):
        with device_of(array).in_use():
            limit = array.dtype.type(clip_value)
            array[...] = namespace_of(array).clip(array, -limit, limit)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Any]:
    given = [parameters] if isinstance(parameters, Tensor) else list(listed(parameters))
    return [p.grad.array for p in given if p.grad is not None]


def gradient_norm(arrays: Sequence[Any], norm_type: float = 2.0) -> float:
    """The norm of all elements of several arrays, 0 if there are none."""
    if norm_type == 2:
        total = sum(map(_sum_of_squares, arrays))
        return sqrt(total) if isfinite(total) and total >= 0 else float(total)
    sizes = [_size(array, norm_type) for array in arrays if array.size]
    if any(map(isnan, sizes)):
        return nan
    largest = max(sizes, default=0.0)
    if norm_type == inf or largest in (0.0, inf):
        return largest
    # relative to the largest norm, because powers of the norms themselves may overflow
    return largest * sum((size / largest) ** norm_type for size in sizes) ** (1 / norm_type)


def _size(array: Any, norm_type: float) -> float:
    """(Σ|x|ᵖ)^(1/p), or the largest |x|, in float64."""
    xp = namespace_of(array)
    with device_of(array).in_use():
        sizes = xp.abs(array.astype(np.float64))
        largest = float(sizes.max())
        if norm_type == inf or not 0 < largest < inf:
            return largest
        return largest * float(((sizes / largest) ** norm_type).sum()) ** (1 / norm_type)


def _sum_of_squares(array: Any) -> float:
    """The sum of squares, in the array's dtype (float32 for float16); in float64 if it overflows.

    On a GPU it is always computed in float64, and without `dot`, which would load cuBLAS.
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
    """The factor that brings gradients of this norm to a norm of at most `max_norm`.

    It is NaN if the norm is NaN, and 1 if `max_norm` is infinite.
    """
    scale = 1.0 if max_norm == inf else max_norm / (norm + 1e-6)
    return 1.0 if scale >= 1 else scale  # NaN stays NaN
