import numpy as np
import pytest

from minigrad.kernels.cpu import embedding
from tests.minigrad.kernels.twins import check_twins, layouts

SHAPES = [((2, 127), 20, 16), ((5,), 1, 3), ((), 4, 2), ((1, 1), 2, 1), ((2, 3, 4), 100, 5)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "vocabulary", "channels"), SHAPES)
def test_equals_textbook(shape, vocabulary, channels, dtype):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((vocabulary, channels)).astype(dtype)
    check_twins("embedding", (weight, rng.integers(0, vocabulary, shape)), rng)


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1)))))
def test_any_memory_order(layout):
    rng = np.random.default_rng(1)
    weight, ids = rng.standard_normal((9, 4)), rng.integers(0, 9, (3, 5))
    check_twins("embedding", (layouts(weight)[layout], layouts(ids)[layout]), rng)


@pytest.mark.parametrize("ids", [[3, 3, 3, 3], [-1, 8, 0, -9], []])
def test_repeated_negative_and_no_ids(ids):
    rng = np.random.default_rng(2)
    check_twins("embedding", (rng.standard_normal((9, 4)), np.array(ids, np.int64)), rng)


def test_rows_that_are_not_used_get_zero_and_no_gradient_if_not_needed():
    weight, ids = np.ones((5, 2)), np.array([1, 3])
    y, saved = embedding.forward(weight, ids)
    dweight, none = embedding.backward(y, saved, (True, False))
    assert none is None
    np.testing.assert_array_equal(dweight.any(axis=1), [False, True, False, True, False])
    assert embedding.backward(y, saved, (False, False)) == (None, None)


def test_id_outside_of_the_table():
    with pytest.raises(IndexError):
        embedding.forward(np.ones((5, 2)), np.array([5]))
