"""Reductions and the softmax family."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor, grad
from tests.minigrad.compare import assert_close, assert_same_as_torch, float64

AXES: list[Any] = [None, 0, 1, -1, (0, 1), (-1, 0), (0, 1, 2), ()]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_values_are_numpys(name: str, axis: Any, keepdims: bool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 4))
    ours = getattr(mg, name)(x, axis, keepdims)
    assert np.array_equal(ours.numpy(), getattr(np, name)(x, axis=axis, keepdims=keepdims))
    assert np.array_equal(getattr(Tensor(x), name)(axis=axis).numpy(), getattr(x, name)(axis=axis))


@pytest.mark.parametrize("axis", [None, 0, (0, 2), -1])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_var(axis: Any, ddof: int, keepdims: bool, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    x = rng.standard_normal((2, 3, 4))
    ours = mg.var(x, axis, ddof, keepdims)
    assert_close(ours.numpy(), np.var(x, axis=axis, ddof=ddof, keepdims=keepdims))
    assert_same_as_torch(
        lambda x: x.var(axis, ddof=ddof, keepdims=keepdims),
        lambda x: torch.var(x, axis, correction=ddof, keepdim=keepdims),
        x,
    )


def test_var_of_too_few_elements_is_not_a_number() -> None:
    """This is so in NumPy, PyTorch and the Array API standard."""
    assert np.isnan(mg.var(mg.ones((1, 3)), axis=0, ddof=1).numpy()).all()


def test_a_number_has_the_axes_0_and_minus_1() -> None:
    """NumPy too allows these axes for a sum, and no others."""
    for name in ("sum", "mean", "max", "logsumexp"):
        for axis in (0, -1, None, ()):
            assert getattr(mg, name)(Tensor(2.0), axis).item() == 2
        for axis in (1, -2):
            with pytest.raises(ValueError, match=r"out of (range|bounds)"):
                getattr(mg, name)(Tensor(2.0), axis)


def test_integers() -> None:
    ints = Tensor([[1, 2], [3, 5]])
    assert ints.sum().dtype == np.int64 and ints.sum().item() == 11
    assert ints.mean().dtype == np.float32 and ints.mean().item() == 2.75
    assert ints.max(0).tolist() == [3, 5] and ints.max().dtype == np.int64
    assert Tensor([True, True, False]).sum().item() == 2
    assert ints.var().item() == np.float32(2.1875)


def test_numpy_integers_are_axes() -> None:
    x, axis = mg.ones((2, 3), requires_grad=True), np.int64(1)
    for y in (x.sum(axis), x.max(axis), x.var(axis), mg.logsumexp(x, axis), x.squeeze(())):
        y.sum().backward()
    assert x.sum(axis).shape == (2,)


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_ties_share_the_gradient_as_in_torch(name: str, axis: int | None) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    x = np.array([[1.0, 3.0, 3.0], [3.0, 1.0, 1.0]])
    dim = () if axis is None else axis
    assert_same_as_torch(
        lambda x: getattr(mg, name)(x, axis), lambda x: getattr(torch, f"a{name}")(x, dim), x
    )


def test_argmax_is_the_first_maximum() -> None:
    x = Tensor([[1.0, 3.0, 3.0], [0.0, -1.0, 0.0]])
    assert x.argmax().item() == 1 and x.argmin().item() == 4
    assert x.argmax(1).tolist() == [1, 0] and x.argmin(0).tolist() == [1, 1, 1]
    assert x.argmax().dtype == np.int64


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax_family_is_torchs(axis: int, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    x = rng.standard_normal((3, 4, 5)) * 4
    assert_same_as_torch(lambda x: mg.softmax(x, axis), lambda x: torch.softmax(x, axis), x)
    assert_same_as_torch(lambda x: mg.log_softmax(x, axis), lambda x: torch.log_softmax(x, axis), x)
    assert_same_as_torch(lambda x: mg.logsumexp(x, axis), lambda x: torch.logsumexp(x, axis), x)


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_family_neither_overflows_nor_underflows(shift: float, dtype: Any) -> None:
    x = Tensor(np.array([0.0, 1.0, 2.0], dtype) + dtype(shift))
    exact = np.exp([0.0, 1.0, 2.0]) / np.exp([0.0, 1.0, 2.0]).sum()
    eps = np.finfo(dtype).eps
    assert_close(mg.softmax(x).numpy(), exact, 4 * eps)
    assert_close(mg.log_softmax(x).numpy(), np.log(exact), 4 * eps)
    assert_close(mg.logsumexp(x).numpy(), shift + np.log(np.exp([0, 1, 2]).sum()), 4 * eps)


def test_logsumexp_of_minus_infinity() -> None:
    """A -inf adds e^-inf = 0 to the sum. If all are -inf, the result is ln 0 = -inf."""
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    x = np.array([[0.0, -np.inf, 1.0], [3.0, 2.0, -np.inf]])
    assert_same_as_torch(lambda x: mg.logsumexp(x, 1), lambda x: torch.logsumexp(x, 1), x)
    (t,) = float64([-np.inf, -np.inf])
    y = mg.logsumexp(t)
    assert y.item() == -np.inf
    assert grad(y, t).tolist() == [0, 0], "PyTorch gives NaN"
    assert mg.logsumexp(Tensor([1.0, np.inf])).item() == np.inf


def test_softmax_of_minus_infinity_is_zero() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    x = np.array([[0.0, -np.inf, 1.0]])
    assert_same_as_torch(mg.softmax, lambda x: torch.softmax(x, -1), x)
    assert_same_as_torch(mg.log_softmax, lambda x: torch.log_softmax(x, -1), x)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "logsumexp", "softmax", "var"])
def test_an_axis_that_is_not_there(name: str) -> None:
    with pytest.raises(ShapeError, match=rf"{name} of shape.* \(2, 3\).*axis"):
        getattr(mg, name)(mg.ones((2, 3)), axis=2)


@pytest.mark.parametrize("name", ["max", "min"])
def test_the_maximum_of_nothing(name: str) -> None:
    with pytest.raises(ShapeError, match=rf"{name} of shapes \(0, 2\).*zero-size"):
        getattr(mg, name)(mg.ones((0, 2)), axis=0)


def test_sums_of_nothing() -> None:
    assert mg.zeros((0, 2)).sum(0).tolist() == [0, 0]
    x = mg.zeros((0, 2), requires_grad=True)
    assert grad(x.sum(), x).shape == (0, 2)
