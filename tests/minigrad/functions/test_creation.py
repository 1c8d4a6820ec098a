"""Creation functions."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor

CREATION = mg.functions.creation.__all__


@pytest.mark.parametrize("name", ["zeros", "ones"])
@pytest.mark.parametrize("shape", [3, (2, 3), (), (0, 2)])
def test_filled(name: str, shape: Any) -> None:
    x = getattr(mg, name)(shape)
    assert np.array_equal(x.numpy(), getattr(np, name)(shape)) and x.dtype == np.float32
    assert getattr(mg, name)(shape, "int64").dtype == np.int64
    assert getattr(mg, name)(shape, requires_grad=True).requires_grad


def test_full_and_like() -> None:
    assert mg.full((2, 2), 7).tolist() == [[7, 7], [7, 7]] and mg.full(2, 7.0).dtype == np.float32
    assert mg.full(2, 7).dtype == np.int64 and mg.full(2, True).dtype == np.bool
    assert mg.full(2, np.float64(7)).dtype == mg.full(2, [7, 8]).dtype == np.float32
    x = Tensor(np.arange(3.0))
    for like, value in ((mg.zeros_like(x), 0), (mg.ones_like(x), 1), (mg.full_like(x, 5), 5)):
        assert like.dtype == np.float64 and like.tolist() == [value] * 3
        assert not np.shares_memory(like.data, x.data)


@pytest.mark.parametrize("bounds", [(5,), (2, 9), (2, 9, 3), (9, 2, -2), (0,), (np.int64(4),)])
def test_arange_of_integers(bounds: Any) -> None:
    x = mg.arange(*bounds)
    assert np.array_equal(x.numpy(), np.arange(*bounds)) and x.dtype == np.int64


def test_arange_of_floats() -> None:
    x = mg.arange(0.0, 1.0, 0.25)
    assert x.tolist() == [0, 0.25, 0.5, 0.75] and x.dtype == np.float32
    assert mg.arange(3.0).dtype == mg.arange(0, 1, 0.5).dtype == np.float32
    assert mg.arange(3, dtype="float64").dtype == np.float64


def test_linspace_and_eye() -> None:
    assert mg.linspace(0, 1, 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert mg.linspace(0, 1, 5, "float64").dtype == np.float64
    assert mg.eye(2).tolist() == [[1, 0], [0, 1]]


def test_asarray() -> None:
    array = np.arange(3.0)
    assert mg.asarray(array).data is array
    assert mg.asarray([1, 2], "float64", requires_grad=True).requires_grad


def test_empty_and_other_dtypes_of_what_is_alike() -> None:
    assert mg.empty((2, 3)).shape == mg.empty(2, 3).shape == (2, 3)
    assert mg.empty(2, "int8").dtype == np.int8 and mg.empty((), device="cpu").size == 1
    x = mg.arange(3)
    assert mg.empty_like(x).dtype == np.int64 and mg.empty_like(x).shape == (3,)
    for like in (mg.zeros_like, mg.ones_like, mg.empty_like):
        assert like(x, dtype="float32", device="cpu").dtype == np.float32
    assert mg.full_like(x, 2.5, dtype="float64").tolist() == [2.5] * 3
    assert mg.linspace(0, 1, 4, endpoint=False).tolist() == [0, 0.25, 0.5, 0.75]


def test_namespace_has_what_it_promises() -> None:
    """`minigrad.functions` is an array namespace. Its names are public in `minigrad` too."""
    for name in mg.functions.__all__:
        assert getattr(mg, name) is getattr(mg.functions, name)
        assert (getattr(mg, name).__doc__ or "").strip(), name
    assert len(set(mg.functions.__all__)) == len(mg.functions.__all__)
    assert sorted(mg.functions.__all__) == mg.functions.__all__
