"""Compares tensors with arrays, and minigrad with PyTorch: values and gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minigrad import Tensor, grad


def relative_error(actual: Any, desired: Any) -> float:
    """The largest difference, relative to the largest desired value, or to 1 if that is larger.

    The tests' numbers have a size of about 1. So a result near 0 is a sum whose terms cancel, and
    it has their rounding errors. Shapes must be equal.
    """
    actual, desired = np.asarray(actual, np.float64), np.asarray(desired, np.float64)
    assert actual.shape == desired.shape, f"shape {actual.shape} instead of {desired.shape}"
    same = (actual == desired) | (np.isnan(actual) & np.isnan(desired))  # infinities too
    if same.all():
        return 0.0
    difference = np.abs(np.where(same, 0, actual - desired))
    scale = np.abs(np.where(np.isfinite(desired), desired, 0)).max()
    return float(difference.max() / max(scale, 1))


def assert_close(actual: Any, desired: Any, rtol: float = 1e-12) -> None:
    """Arrays are equal up to `rtol` times the largest value."""
    error = relative_error(actual, desired)
    assert error <= rtol, f"off by {error:.2e} of the largest value\n{actual}\n{desired}"


def float64(*arrays: Any) -> list[Tensor]:
    """Arrays as float64 leaves that require a gradient."""
    return [Tensor(np.array(a, np.float64), requires_grad=True) for a in arrays]


def assert_same_as_torch(
    ours: Callable[..., Tensor],
    theirs: Callable[..., Any],
    *arrays: np.ndarray,
    rtol: float = 1e-12,
) -> None:
    """The value equals PyTorch's, and so do the gradients of all float arrays.

    The upstream gradient is random.
    """
    torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
    tensors = [Tensor(a.copy(), requires_grad=a.dtype.kind == "f") for a in arrays]
    others = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    y, other_y = ours(*tensors), theirs(*others)
    assert_close(y.numpy(), other_y.detach().numpy(), rtol)
    upstream = np.random.default_rng(1).standard_normal(y.shape)
    wanted = [x for x in tensors if x.requires_grad]
    other_wanted = [x for x in others if x.requires_grad]
    gradients = grad(y, wanted, Tensor(upstream), allow_unused=True)
    other_gradients = torch.autograd.grad(
        other_y, other_wanted, torch.tensor(upstream), allow_unused=True
    )
    for gradient, other in zip(gradients, other_gradients, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None:
            assert_close(gradient.numpy(), other.numpy(), rtol)
