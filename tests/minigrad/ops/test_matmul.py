"""Matmuls and einsum."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor
from tests.minigrad.compare import assert_close, assert_same_as_torch

SHAPES = [
    ((3, 2), (2, 4)),
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((3,), (4, 3, 2)),
    ((4, 2, 3), (3,)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((2, 1, 4, 3), (5, 3, 2)),
    ((0, 3), (3, 2)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_matmul_is_numpys_and_torchs(
    left: tuple[int, ...], right: tuple[int, ...], rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    x, y = rng.standard_normal(left), rng.standard_normal(right)
    assert np.array_equal((Tensor(x) @ Tensor(y)).numpy(), x @ y)
    assert_same_as_torch(mg.matmul, torch.matmul, x, y)


@pytest.mark.parametrize(
    ("left", "right"), [((2, 3), (4, 5)), ((3,), (4,)), ((2, 2, 3), (3, 3, 2)), ((), (3,))]
)
def test_matmul_of_shapes_that_do_not_fit(left: Any, right: Any) -> None:
    with pytest.raises(ShapeError) as error:
        mg.ones(left) @ mg.ones(right)
    assert f"matmul of shapes {left} and {right}" in str(error.value)


EINSUMS: list[tuple[Any, ...]] = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)),
    ("i,i->", (3,), (3,)),
    ("i,j->ij", (3,), (4,)),
    ("ij->ji", (3, 4)),
    ("ij->", (3, 4)),
    ("ii", (3, 3)),
    ("ii->i", (3, 3)),
    ("iij->j", (3, 3, 2)),
    ("iji,j->i", (2, 3, 2), (3,)),
    ("iii->i", (3, 3, 3)),
    ("...ij->...ji", (2, 3, 4)),
    ("...ij,...jk->...ik", (5, 2, 3), (3, 4)),
    ("...ij,...jk->...ik", (5, 1, 2, 3), (4, 3, 2)),
    ("i...,i...->...", (3, 2, 2), (3, 2, 2)),
    ("...,...->...", (2, 3), (3,)),
    ("...i->...", (2, 3)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ba", (3, 4)),
    ("b...a", (3, 2, 4)),
    (" ij , jk -> ik ", (2, 3), (3, 4)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    ("Ab,bC->AC", (2, 3), (3, 2)),
]


@pytest.mark.parametrize("subscripts_and_shapes", EINSUMS, ids=lambda case: case[0])
def test_einsum_is_numpys_and_torchs(
    subscripts_and_shapes: tuple[Any, ...], rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    subscripts, *shapes = subscripts_and_shapes
    arrays = [rng.standard_normal(shape) for shape in shapes]
    assert_close(mg.einsum(subscripts, *arrays).numpy(), np.einsum(subscripts, *arrays))
    assert_same_as_torch(
        lambda *xs: mg.einsum(subscripts, *xs), lambda *xs: torch.einsum(subscripts, *xs), *arrays
    )


def test_einsum_of_a_long_sum_that_is_stretched_to_nothing() -> None:
    """An axis of size 1 broadcasts to size 0."""
    for left, right in (((200, 1), (200, 0)), ((200, 0), (200, 1)), ((1, 0), (200, 1))):
        x, y = (Tensor(np.ones(shape), requires_grad=True) for shape in (left, right))
        found = mg.einsum("ki,ki->i", x, y)
        assert found.shape == np.einsum("ki,ki->i", x.numpy(), y.numpy()).shape == (0,)
        found.sum().backward()
        assert x.grad is not None and not x.grad.numpy().any()


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", [(2, 3)]),
        ("ij,jk->ik", [(2, 3), (4, 2)]),
        ("ijk", [(2, 3)]),
        ("i", [(2, 3)]),
        ("ij->k", [(2, 3)]),
        ("ij->ii", [(2, 3)]),
        ("ii", [(2, 3)]),
        ("i%->i", [(2, 3)]),
        ("...ij->ij", [(2, 2, 3)]),
    ],
)
def test_einsum_of_shapes_that_do_not_fit(subscripts: str, shapes: Any) -> None:
    with pytest.raises(ShapeError, match="einsum") as error:
        mg.einsum(subscripts, *[mg.ones(shape) for shape in shapes])
    assert all(str(shape) in str(error.value) for shape in shapes)


@pytest.mark.parametrize(
    "subscripts",
    ["ij,jk,kl->il", "ij,jk,kl,lm->im", "a,b,c->abc", "ij,ij,ij->", "ii,ij,jk->ik", "...i,ij,jk"],
)
def test_einsum_of_many_operands_goes_two_at_a_time(
    subscripts: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = subscripts.split("->")[0].split(",")
    arrays = [rng.standard_normal((3,) * len(t.replace("...", "xy"))) for t in terms]
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    y = mg.einsum(subscripts, *tensors)
    assert np.allclose(y.numpy(), np.einsum(subscripts, *arrays), rtol=1e-12)
    mg.gradcheck(lambda *xs: mg.einsum(subscripts, *xs), tensors)


def test_einsum_of_a_chain_costs_what_its_products_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four operands at once would be 7 nested loops in forward; two at a time are 3."""
    letters = []
    real = np.einsum
    monkeypatch.setattr(
        np, "einsum", lambda s, *xs: letters.append(len(set(s) - set(",->"))) or real(s, *xs)
    )
    matrices = [Tensor(np.eye(5), requires_grad=True) for _ in range(4)]
    mg.einsum("ij,jk,kl,lm->im", *matrices).sum().backward()
    assert max(letters) == 3 and len(letters) == 3 + 6


def test_einsum_of_many_names_the_shapes_that_do_not_fit() -> None:
    with pytest.raises(mg.ShapeError, match=r"\(2, 3\) and \(4, 5\) and \(5, 6\)"):
        mg.einsum("ij,jk,kl->il", mg.ones((2, 3)), mg.ones((4, 5)), mg.ones((5, 6)))


def test_einsum_without_subscripts_or_operands() -> None:
    for arguments in [(mg.ones((2, 2)), [0, 1]), ("ij",)]:
        with pytest.raises(TypeError, match="einsum takes subscripts, then operands"):
            mg.einsum(*arguments)
