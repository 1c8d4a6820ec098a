"""Matrix products and einsum."""

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
