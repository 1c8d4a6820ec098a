"""Dropout: the op, which takes a mask, and the function, which draws it."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import Generator, ShapeError, Tensor, grad
from minigrad.engine import apply
from minigrad.nn import functional as F
from minigrad.ops import TEXTBOOK


def test_the_mask_is_the_input_of_a_pure_op() -> None:
    x = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
    keep = Tensor(np.array([True, False, True]))
    y = apply(TEXTBOOK["dropout"], x, keep, p=0.5)
    assert y.tolist() == [2, 0, 6]
    assert grad(y, x, Tensor(np.array([1.0, 1.0, 10.0]))).tolist() == [2, 0, 20]


def test_the_same_elements_are_dropped_in_forward_and_backward() -> None:
    x = mg.ones((50, 50), requires_grad=True)
    y = F.dropout(x, 0.3, rng=Generator(1))
    assert np.array_equal(grad(y.sum(), x).numpy(), y.numpy())


def test_statistics() -> None:
    x = Tensor(np.full((400, 400), 2.0, np.float32))
    y = F.dropout(x, 0.25, rng=Generator(0)).numpy()
    assert y.dtype == np.float32
    assert abs((y == 0).mean() - 0.25) < 0.005, "4.6 standard deviations of the share"
    assert abs(y.mean() - 2) < 0.015, "the expectation stays"
    assert np.allclose(y[y != 0], 2 / 0.75, rtol=1e-6)


def test_a_seed_gives_a_mask_and_the_next_mask_differs() -> None:
    x, rng = mg.ones((20, 20)), Generator(3)
    first, second = F.dropout(x, 0.5, rng=rng), F.dropout(x, 0.5, rng=rng)
    assert np.array_equal(first.numpy(), F.dropout(x, 0.5, rng=Generator(3)).numpy())
    assert not np.array_equal(first.numpy(), second.numpy())


def test_nothing_is_dropped_with_probability_0() -> None:
    x, rng = mg.ones(3), Generator(0)
    before = rng.state_dict()
    assert F.dropout(x, 0.0, rng=rng) is x
    assert rng.state_dict() == before


@pytest.mark.parametrize("p", [1.0, -0.1, 1.5, float("nan")])
def test_probabilities_out_of_range(p: float) -> None:
    with pytest.raises(ValueError, match=r"dropout: p must be in \[0, 1\)"):
        F.dropout(mg.ones(3), p, rng=Generator(0))


def test_a_mask_of_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"dropout of shapes \(2, 3\) and \(4,\)"):
        apply(TEXTBOOK["dropout"], mg.ones((2, 3)), Tensor([True] * 4), p=0.5)
