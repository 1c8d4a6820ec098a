"""`nn.Embedding(padding_idx=...)` behaves like PyTorch's."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import functional as F

IDS = np.array([[1, 0, 3], [3, 3, 2]])


@pytest.mark.parametrize("padding_idx, row", [(3, 3), (-1, 3), (0, 0), (np.int64(-4), 0)])
def test_the_row_is_zero_and_gets_no_gradient(padding_idx: int, row: int) -> None:
    layer = nn.Embedding(4, 2, padding_idx, rng=mg.Generator(0), dtype=np.float64)
    plain = nn.Embedding(4, 2, rng=mg.Generator(0), dtype=np.float64)
    kept = np.arange(4) != row
    assert layer.padding_idx == row and not layer.weight.numpy()[row].any()
    np.testing.assert_array_equal(layer.weight.numpy()[kept], plain.weight.numpy()[kept])
    for embedding in (layer, plain):
        (embedding(IDS) ** 2).sum().backward()
    assert not layer.weight.grad.numpy()[row].any()
    np.testing.assert_array_equal(layer.weight.grad.numpy()[kept], plain.weight.grad.numpy()[kept])


def test_a_row_that_somebody_has_filled_is_read_as_it_is() -> None:
    weight = mg.Tensor(np.arange(8.0).reshape(4, 2), requires_grad=True)
    y = F.embedding(weight, IDS, padding_idx=3)
    np.testing.assert_array_equal(y.numpy(), weight.numpy()[IDS])


def test_other_uses_of_the_table_have_their_gradient() -> None:
    weight = mg.Tensor(np.ones((4, 2)), requires_grad=True)
    (F.embedding(weight, IDS, padding_idx=3).sum() + weight.sum()).backward()
    np.testing.assert_array_equal(weight.grad.numpy()[3], [1, 1])


def test_positions_of_padding_have_their_gradient(rng: np.random.Generator) -> None:
    weight = mg.Tensor(rng.standard_normal((4, 2)), requires_grad=True)
    positions = mg.Tensor(rng.standard_normal((5, 2)), requires_grad=True)
    mg.gradcheck(lambda p: F.embedding(weight.detach(), IDS, p, padding_idx=3), [positions])
    F.embedding(weight, IDS, positions, padding_idx=3).sum().backward()
    assert positions.grad.tolist() == [[2, 2]] * 3 + [[0, 0]] * 2
    assert weight.grad.numpy()[3].tolist() == [0, 0]


def test_second_derivatives_pass_by_padding_too() -> None:
    weight = mg.Tensor(np.full((4, 1), 2.0), requires_grad=True)
    first = mg.grad((F.embedding(weight, IDS, padding_idx=3) ** 3).sum(), weight, create_graph=True)
    second = mg.grad(first.sum(), weight)
    assert second.numpy().ravel().tolist() == [12, 12, 12, 0]


@pytest.mark.parametrize("padding_idx", [4, -5])
def test_there_must_be_such_a_row(padding_idx: int) -> None:
    with pytest.raises(IndexError, match="no row of a table of 4"):
        nn.Embedding(4, 2, padding_idx, rng=mg.Generator(0))
    with pytest.raises(IndexError, match="no row of a table of 4"):
        F.embedding(mg.ones((4, 2)), IDS, padding_idx=padding_idx)


def test_it_is_said() -> None:
    layer = nn.Embedding(5, 3, padding_idx=-1, rng=mg.Generator(0))
    assert repr(layer) == "Embedding(5 x 3, padding_idx=4)"


def test_it_is_pytorchs(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    table, upstream = rng.standard_normal((4, 2)), rng.standard_normal((2, 3, 2))
    theirs = torch.tensor(table, requires_grad=True)
    y = torch.nn.functional.embedding(torch.tensor(IDS), theirs, padding_idx=3)
    y.backward(torch.tensor(upstream))
    ours = mg.Tensor(table, requires_grad=True)
    F.embedding(ours, IDS, padding_idx=3).backward(mg.Tensor(upstream))
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-14)
