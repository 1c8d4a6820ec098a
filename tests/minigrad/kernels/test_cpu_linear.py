import itertools

import numpy as np
import pytest

from minigrad.kernels.cpu import linear
from tests.minigrad.kernels.twins import check_twins, layouts

SHAPES = [
    ((2, 127, 16), 48),
    ((3, 1, 5), 7),
    ((1, 1), 1),
    ((4, 3), 1),
    ((6,), 4),
    ((2, 3, 4, 5), 9),
]


def _inputs(rng, shape, c_out, dtype):
    x = rng.standard_normal(shape).astype(dtype)
    weight = rng.standard_normal((c_out, shape[-1])).astype(dtype)
    return x, weight, rng.standard_normal(c_out).astype(dtype)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "c_out"), SHAPES)
def test_equals_textbook(shape, c_out, dtype, activation):
    rng = np.random.default_rng(0)
    x, weight, bias = _inputs(rng, shape, c_out, dtype)
    check_twins("linear", (x, weight, bias), rng, activation=activation)
    check_twins("linear", (x, weight, None), rng, activation=activation)


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1)))))
def test_any_memory_order(layout):
    rng = np.random.default_rng(1)
    x, weight, bias = _inputs(rng, (3, 5, 6), 4, np.float64)
    check_twins("linear", (layouts(x)[layout], layouts(weight)[layout], bias), rng)


@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3)))
def test_only_what_is_needed(needs):
    rng = np.random.default_rng(2)
    inputs = _inputs(rng, (2, 3, 4), 5, np.float64)
    check_twins("linear", inputs, rng, needs=needs, activation="relu")
    y, saved = linear.forward(*inputs, activation="relu")
    gradients = linear.backward(y, saved, needs, activation="relu")
    assert tuple(g is not None for g in gradients) == needs


def test_relu_keeps_nan():
    x = np.array([[np.nan, 1.0], [2.0, -3.0]])
    y, _ = linear.forward(x, np.eye(2), None, activation="relu")
    assert np.isnan(y[0]).all()
    np.testing.assert_array_equal(y[1], [2.0, 0.0])
