"""Gradient clipping: by a norm of any order, and by value."""

from math import inf, nan
from typing import Any

import numpy as np
import pytest

from minigrad import NonFiniteError, Tensor, nn
from minigrad.optim import clip_grad_norm_, clip_grad_value_


def with_gradients(*gradients: Any, dtype: Any = np.float64) -> list[nn.Parameter]:
    params = [nn.Parameter(np.zeros(np.shape(g), dtype)) for g in gradients]
    for p, g in zip(params, gradients, strict=True):
        p.grad = Tensor(np.asarray(g, dtype))
    return params


@pytest.mark.parametrize(
    ("norm_type", "norm"), [(1, 19.0), (2, 13.0), (3, (27 + 64 + 1728) ** (1 / 3)), (inf, 12.0)]
)
def test_norms_by_hand(norm_type: float, norm: float) -> None:
    params = with_gradients([3.0, -4.0], [[-12.0]])
    assert clip_grad_norm_(params, norm / 2, norm_type) == pytest.approx(norm, rel=1e-14)
    assert params[0].grad.tolist() == pytest.approx([1.5, -2.0], rel=1e-6)
    assert params[1].grad.tolist() == [[pytest.approx(-6.0, rel=1e-6)]]
    assert clip_grad_norm_(params, inf, norm_type) == pytest.approx(norm / 2, rel=1e-6)


@pytest.mark.parametrize("norm_type", [1, 3, 50, inf])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_powers_beyond_the_range_are_no_norm(norm_type: float, size: float) -> None:
    params = with_gradients([3 * size, 4 * size], dtype=np.float32)
    expected = {1: 7.0, 3: 91 ** (1 / 3), 50: 4.0, inf: 4.0}[norm_type]
    assert clip_grad_norm_(params, inf, norm_type) == pytest.approx(expected * size, rel=1e-5)


@pytest.mark.parametrize("norm_type", [1, 2, 3, inf])
def test_norms_that_are_not_finite(norm_type: float) -> None:
    assert clip_grad_norm_(with_gradients([1.0, inf], [2.0]), inf, norm_type) == inf
    assert np.isnan(clip_grad_norm_(with_gradients([1.0, nan], [inf]), inf, norm_type))
    params = with_gradients([1.0, nan], [2.0])
    assert np.isnan(clip_grad_norm_(params, 1.0, norm_type))
    assert all(np.isnan(p.grad.numpy()).all() for p in params)
    with pytest.raises(NonFiniteError, match="the norm of the gradients is nan"):
        clip_grad_norm_(params, 1.0, norm_type, error_if_nonfinite=True)


def test_nothing_to_clip() -> None:
    x = nn.Parameter([3.0, 4.0])
    for norm_type in (1, 2, inf):
        assert clip_grad_norm_([x], 1.0, norm_type) == 0.0
        assert clip_grad_norm_(with_gradients(np.zeros((0, 3)), [0.0]), 1.0, norm_type) == 0.0
    clip_grad_value_([x], 1.0)
    assert x.grad is None


@pytest.mark.parametrize("norm_type", [0, -1, nan, -inf])
def test_orders_that_are_none(norm_type: float) -> None:
    with pytest.raises(ValueError, match="norm_type must be positive"):
        clip_grad_norm_(with_gradients([1.0]), 1.0, norm_type)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values(dtype: Any) -> None:
    x, y = with_gradients([-3.0, 0.25, inf, nan], [[2.0]], dtype=dtype)
    array = x.grad.array
    clip_grad_value_([x, y], 0.5)
    assert x.grad.array is array and array.dtype == dtype
    assert array[:3].tolist() == [-0.5, 0.25, 0.5] and np.isnan(array[3])
    clip_grad_value_(y, 0.25)
    assert y.grad.tolist() == [[0.25]]


@pytest.mark.parametrize("limit", [-1.0, nan])
def test_limits_that_are_none(limit: float) -> None:
    with pytest.raises(ValueError, match="the limit must not be negative"):
        clip_grad_value_(with_gradients([1.0]), limit)
