"""The op embedding: rows of a table."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor, grad
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_close, assert_same_as_torch, float64


@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (0,), (1, 1)])
def test_embedding_is_torchs(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    table, ids = rng.standard_normal((5, 3)), np.asarray(rng.integers(0, 5, shape))
    for context in (mg.enable_grad, mg.textbook):
        with context():
            assert_same_as_torch(
                lambda w: F.embedding(w, ids),
                lambda w: torch.nn.functional.embedding(torch.tensor(ids), w),
                table,
            )


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint16])
def test_ids_of_any_integer_dtype(dtype: Any) -> None:
    (table,) = float64(np.arange(12.0).reshape(4, 3))
    y = F.embedding(table, np.array([3, 0, 3], dtype))
    assert y.tolist() == [[9, 10, 11], [0, 1, 2], [9, 10, 11]]
    assert_close(grad(y.sum(), table).numpy(), [[1] * 3, [0] * 3, [0] * 3, [2] * 3])


def test_ids_may_be_lists_and_numbers() -> None:
    table = Tensor(np.arange(6.0).reshape(3, 2))
    assert F.embedding(table, [2, 0]).tolist() == [[4, 5], [0, 1]]
    assert F.embedding(table, 1).tolist() == [2, 3]


@pytest.mark.parametrize("bad", [3, -1, 1_000_000])
def test_an_id_out_of_range_is_named_with_the_vocabulary(bad: int) -> None:
    with pytest.raises(IndexError, match=rf"embedding: id {bad} is out of range.*vocabulary of 3"):
        F.embedding(mg.ones((3, 2)), np.array([[0, 1], [bad, 2]]))


def test_ids_must_be_integers_and_the_table_a_table() -> None:
    with pytest.raises(TypeError, match="embedding: ids must be integers, not float32"):
        F.embedding(mg.ones((3, 2)), mg.ones(2))
    with pytest.raises(ShapeError, match=r"embedding: .*\(V, C\), not \(3,\)"):
        F.embedding(mg.ones(3), np.array([0]))
