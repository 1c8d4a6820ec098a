"""Indexing as in NumPy, and its adjoint."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, grad
from tests.minigrad.compare import assert_close, float64
from tests.minigrad.ops.cases import INDICES

X = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("label", INDICES)
def test_values_are_numpys(label: str) -> None:
    index = INDICES[label]
    y = Tensor(X)[index]
    assert isinstance(y, Tensor)
    assert np.array_equal(y.numpy(), X[index]) and y.shape == X[index].shape


@pytest.mark.parametrize("label", INDICES)
def test_gradient_adds_up_where_an_element_is_read_twice(label: str) -> None:
    (x,) = float64(X)
    y = x[INDICES[label]]
    upstream = np.arange(1.0, y.size + 1).reshape(y.shape)
    expected = np.zeros_like(X)
    np.add.at(expected, INDICES[label], upstream)
    assert np.array_equal(grad(y, x, Tensor(upstream)).numpy(), expected)
    assert np.array_equal(mg.scatter_add(upstream, INDICES[label], (3, 4)).numpy(), expected)


def test_tensors_are_indices_too() -> None:
    x, ids = Tensor(X), Tensor([2, 0])
    assert np.array_equal(x[ids].numpy(), X[[2, 0]])
    assert np.array_equal(x[:, ids].numpy(), X[:, [2, 0]])
    assert np.array_equal(x[ids, ids].numpy(), X[[2, 0], [2, 0]])
    assert np.array_equal(x[x > 5].numpy(), X[X > 5])
    assert x[Tensor(1), Tensor(2)].item() == 6
    assert np.array_equal(x[Tensor(1) :].numpy(), X[1:])


def test_lists_are_arrays() -> None:
    x = Tensor(X)
    assert np.array_equal(x[[0, 2]].numpy(), X[[0, 2]])
    assert np.array_equal(x[[True, False, True]].numpy(), X[[0, 2]])
    assert x[[]].shape == (0, 4)
    assert np.array_equal(x[:, [3, 3]].numpy(), X[:, [3, 3]])


def test_a_slice_is_a_view_and_an_index_array_a_copy() -> None:
    x = Tensor(X)
    assert np.shares_memory(x[1:, ::2].numpy(), X)
    assert not np.shares_memory(x[[1, 2]].numpy(), X)


def test_an_index_out_of_range_is_an_index_error() -> None:
    x = mg.ones((3, 4))
    with pytest.raises(IndexError, match=r"getitem of shapes \(3, 4\).*index 3 is out of bounds"):
        x[3]
    with pytest.raises(IndexError, match=r"getitem of shapes \(3, 4\).*out of bounds"):
        x[[0, 5]]
    with pytest.raises(IndexError, match=r"getitem of shapes \(3, 4\).*too many indices"):
        x[0, 0, 0]
    with pytest.raises(IndexError, match=r"getitem of shapes \(3, 4\).*boolean index"):
        x[np.array([True, False])]
    with pytest.raises(IndexError, match=r"getitem of shapes \(3, 4\)"):
        x[1.5]
    with pytest.raises(IndexError, match=r"getitem of shapes \(3, 4\)"):
        x[Tensor([0.5, 1.0])]
    with pytest.raises(IndexError, match=r"getitem of shapes \(12,\).*99 is out of bounds"):
        mg.take(x, 99)


def test_index_arrays_may_change_after_they_were_used() -> None:
    """The graph keeps a copy of the index, not the array that was passed."""
    (x,) = float64([1.0, 2.0, 3.0])
    ids = np.array([0, 1])
    y = x[ids]
    ids[:] = 2
    assert grad(y.sum(), x).tolist() == [1, 1, 0]


@pytest.mark.parametrize("shape", [(3,), ()])
def test_scatter_add_takes_what_the_index_gives(shape: Any) -> None:
    y = mg.scatter_add(np.ones(shape), ([0, 2, 0],), (3,))
    expected = np.zeros(3)
    np.add.at(expected, [0, 2, 0], np.ones(shape))
    assert_close(y.numpy(), expected)
