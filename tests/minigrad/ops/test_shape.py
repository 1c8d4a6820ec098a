"""Ops that move elements."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor, grad
from tests.minigrad.compare import assert_close, float64

X = np.arange(24.0).reshape(2, 3, 4)


def test_values_are_numpys() -> None:
    x = Tensor(X)
    assert np.array_equal(x.reshape(4, 6).numpy(), X.reshape(4, 6))
    assert np.array_equal(x.reshape((4, -1)).numpy(), X.reshape(4, -1))
    assert np.array_equal(x.reshape(-1).numpy(), X.reshape(-1))
    assert np.array_equal(x.transpose().numpy(), X.T) and np.array_equal(x.T.numpy(), X.T)
    assert np.array_equal(x.transpose(1, 0, 2).numpy(), X.transpose(1, 0, 2))
    assert np.array_equal(x.transpose((2, -3, 1)).numpy(), X.transpose(2, 0, 1))
    assert np.array_equal(x.swapaxes(0, -1).numpy(), X.swapaxes(0, -1))
    assert np.array_equal(x[:1].squeeze().numpy(), X[0])
    assert np.array_equal(x[:1].squeeze(0).numpy(), X[0])
    assert np.array_equal(x[:1, :, :1].squeeze((0, -1)).numpy(), X[0, :, 0])
    assert np.array_equal(x.expand_dims(1).numpy(), np.expand_dims(X, 1))
    assert np.array_equal(x.expand_dims((0, -1)).numpy(), np.expand_dims(X, (0, -1)))
    assert np.array_equal(x.expand_dims([0, -1]).numpy(), np.expand_dims(X, (0, -1)))
    assert np.array_equal(x.broadcast_to((5, 2, 3, 4)).numpy(), np.broadcast_to(X, (5, 2, 3, 4)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_joining(axis: int) -> None:
    parts = [X, X + 1, X * 2]
    assert np.array_equal(mg.concatenate(parts, axis).numpy(), np.concatenate(parts, axis))
    assert np.array_equal(mg.stack(parts, axis).numpy(), np.stack(parts, axis))


def test_joining_takes_dtypes_together() -> None:
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    y = mg.concatenate([x, Tensor(np.zeros(1))])
    assert y.dtype == np.float64
    assert grad(y.sum(), x).dtype == np.float32


def test_a_gradient_reaches_only_those_that_want_it() -> None:
    x, y = float64([1.0, 2.0], [3.0])
    z = mg.concatenate([x, Tensor([9.0]), y])
    dx, dy = grad(z, [x, y], Tensor(np.arange(4.0)))
    assert dx.tolist() == [0, 1] and dy.tolist() == [3]


@pytest.mark.parametrize("sections", [1, 2, 4, [1], [1, 3], [0, 2, 2], [3, 9], np.int64(2)])
def test_split(sections: Any) -> None:
    ours, theirs = mg.split(X, sections, axis=2), np.split(X, sections, axis=2)
    assert len(ours) == len(theirs)
    for mine, their in zip(ours, theirs, strict=True):
        assert np.array_equal(mine.numpy(), their)


def test_gradient_through_split_parts() -> None:
    (x,) = float64(np.arange(6.0))
    first, second, third = mg.split(x, 3)
    gradient = grad((first * 2 + third * 3 + second[:1]).sum(), x)
    assert gradient.tolist() == [2, 2, 2, 0, 3, 3]


@pytest.mark.parametrize("width", [1, (1, 2), ((0, 1), (2, 0), (1, 1))])
def test_pad(width: Any) -> None:
    theirs = np.pad(X, width, constant_values=-1)
    assert np.array_equal(mg.pad(X, width, constant_values=-1).numpy(), theirs)


def test_take() -> None:
    index = np.array([[1, -1], [0, 0]])
    assert np.array_equal(mg.take(X, index, axis=1).numpy(), np.take(X, index, axis=1))
    assert np.array_equal(mg.take(X, [23, 0, 0]).numpy(), np.take(X, [23, 0, 0]))
    assert mg.take(X, 5).item() == 5
    (x,) = float64([1.0, 2.0, 3.0])
    assert grad(mg.take(x, [2, 2, 0]).sum(), x).tolist() == [1, 0, 2]


def test_the_gradient_of_a_view_is_not_a_view_of_the_upstream() -> None:
    (x,) = float64(X)
    upstream = np.ones((4, 3, 2))
    x.T.backward(Tensor(upstream))
    assert x.grad is not None
    x.grad.data += 1
    assert (upstream == 1).all()
    assert_close(x.grad.numpy(), np.full((2, 3, 4), 2.0))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda x: x.reshape(5, 5), r"reshape of shapes \(2, 3, 4\) \(shape=\(5, 5\)\)"),
        (lambda x: x.reshape(-1, -1), r"reshape of shapes \(2, 3, 4\)"),
        (lambda x: x.transpose(0, 1), r"transpose of shape \(2, 3, 4\): \(0, 1\) does not name"),
        (lambda x: x.transpose(0, 1, 1), r"transpose: axis 1 is given twice"),
        (lambda x: x.swapaxes(0, 3), r"swapaxes: axis 3 is out of range for 3 axes"),
        (lambda x: x.squeeze(1), r"squeeze of shape \(2, 3, 4\): axis 1 does not have size 1"),
        (lambda x: x.expand_dims(5), r"expand_dims: axis 5 is out of range"),
        (lambda x: x.broadcast_to((2, 3, 5)), r"broadcast_to of shapes \(2, 3, 4\)"),
        (lambda x: mg.concatenate([x, x[:, :2]]), r"concatenate of shapes .* and \(2, 2, 4\)"),
        (lambda x: mg.concatenate([x, x], 3), r"concatenate of shapes .*\(axis=3\)"),
        (lambda x: mg.concatenate([]), r"concatenate needs at least one tensor"),
        (lambda x: mg.stack([]), r"stack needs at least one tensor"),
        (lambda x: mg.stack([x, x[:1]]), r"stack needs equal shapes, not \[\(2, 3, 4\), \(1, 3"),
        (lambda x: mg.split(x, 2, axis=1), r"split of shape \(2, 3, 4\): 3 is not 2 equal"),
        (lambda x: mg.split(x, 0), r"split of shape \(2, 3, 4\)"),
        (lambda x: mg.split(x, 2, axis=7), r"split: axis 7 is out of range"),
        (lambda x: mg.pad(x, (1, 2, 3)), r"pad of shape \(2, 3, 4\)"),
        (lambda x: mg.pad(x, -1), r"pad of shapes \(2, 3, 4\).*negative"),
        (lambda x: mg.take(x, 0, axis=3), r"take: axis 3 is out of range"),
    ],
)
def test_errors_name_the_op_and_the_shape(use: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        use(mg.ones((2, 3, 4)))
    assert "at least one" in message or isinstance(error.value, ShapeError)
