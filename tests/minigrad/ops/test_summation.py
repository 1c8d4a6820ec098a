"""Sums whose rounding error does not grow with their length, along any axis in any memory order."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, grad
from minigrad.nn import functional as F
from minigrad.ops.embedding import embedding_with_positions
from minigrad.ops.special import scatter_add
from minigrad.ops.summation import BLOCK, WIDTH, centred, mean_of, sum_of

MANY = 2**24 + 2**12  # adding 1 repeatedly in float32 stops at 2²⁴


def test_the_mean_of_many_rows_of_ones_is_one() -> None:
    """It was once 0.8388608."""
    ones = np.broadcast_to(np.float32(1), (20_000_000, 2))
    assert mg.mean(ones, 0).tolist() == [1, 1]


def layouts(x: np.ndarray) -> list[np.ndarray]:
    """x in several orders of memory, with gaps, backwards."""
    wide = np.zeros([2 * n for n in x.shape], x.dtype)
    gaps = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    gaps[...] = x
    return [
        x,
        np.asfortranarray(x),
        gaps,
        x[::-1],
        np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0),
    ]


@pytest.mark.parametrize(
    "shape",
    [
        (3 * BLOCK + 7,),
        (BLOCK, 3),
        (BLOCK + 1, 3),
        (5 * BLOCK + 3, 2),
        (2 * BLOCK, WIDTH + 1),
        (40_000, 2),
        (3, 20_001, 2),
        (700, 3, 5),
        (2, 5, 900, 1),
        (17, 1, 19, 23),
        (0, 3),
        (300, 0),
        (),
    ],
)
def test_is_the_sum(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(shape).astype(np.float32)
    axes: list[Any] = [None, ()]
    for count in range(1, len(shape) + 1):
        axes += list(combinations(range(len(shape)), count))
    for axis in axes:
        for keepdims in (False, True):
            wanted = positive.astype(np.float64).sum(axis=axis, keepdims=keepdims)
            for x in layouts(positive) if shape else [positive]:
                true = wanted
                if x.ndim and x.strides[0] < 0:
                    true = x.astype(np.float64).sum(axis=axis, keepdims=keepdims)
                found = sum_of(np, x, axis, keepdims)
                assert found.shape == true.shape
                assert found.dtype == np.float32
                # terms are positive, so three levels of blocks have at most this relative error
                np.testing.assert_allclose(found, true, rtol=3e-6)


def test_means_and_integers() -> None:
    x = np.arange(24).reshape(2, 3, 4)
    assert sum_of(np, x, 0).dtype == x.dtype
    np.testing.assert_array_equal(sum_of(np, x, (0, 2), True), x.sum((0, 2), keepdims=True))
    np.testing.assert_array_equal(mean_of(np, x.astype(float), (0, -1)), x.mean((0, -1)))
    half = np.full((300, 300), 2.0, np.float16)
    assert sum_of(np, half).dtype == np.float32
    assert sum_of(np, half).item() == 180_000
    with pytest.raises(ValueError, match="axis"):
        sum_of(np, np.zeros((300, 2)), 2)


@pytest.mark.parametrize("name", ["sum", "mean", "logsumexp", "softmax", "log_softmax", "var"])
def test_reductions_over_many_rows(name: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.random((200_000, 2)).astype(np.float32) + 1
    function = getattr(mg, name)
    found, wanted = (function(Tensor(a), axis=0).numpy() for a in (x, x.astype(np.float64)))
    np.testing.assert_allclose(found, wanted, rtol=2e-6)


def gradient_of_ones(function: Any, leaf: np.ndarray) -> np.ndarray:
    """The gradient of `leaf` for an upstream of ones: how often each element is used."""
    x = Tensor(leaf, requires_grad=True)
    y = function(x)
    return grad(y, x, Tensor(np.broadcast_to(np.float32(1), y.shape))).numpy()


def test_a_broadcast_gradient_counts_beyond_the_digits_of_float32() -> None:
    """The engine sums over the axes along which an input was broadcast."""
    for shape, target in (((1,), (MANY, 1)), ((1, 1), (MANY, 1)), ((), (MANY,))):
        found = gradient_of_ones(
            lambda x, target=target: mg.broadcast_to(x, target), np.ones(shape, np.float32)
        )
        assert found.reshape(-1).tolist() == [MANY]


def test_gradients_of_weights_and_biases_add_many_rows() -> None:
    rng = np.random.default_rng(2)
    rows = 60_000
    dy = rng.random((rows, 3)).astype(np.float32)
    x = Tensor(rng.random((rows, 3)).astype(np.float32))
    true = dy.astype(np.float64).sum(0)
    for context in (mg.textbook, mg.enable_grad):
        with context():
            bias = Tensor(np.zeros(3, np.float32), requires_grad=True)
            weight = Tensor(np.eye(3, dtype=np.float32))
            for y in (F.linear(x, weight, bias), x + bias):
                np.testing.assert_allclose(grad(y, bias, Tensor(dy)).numpy(), true, rtol=4e-6)
            scale, shift = (Tensor(np.ones(3, np.float32), requires_grad=True) for _ in range(2))
            y = F.layer_norm(x, scale, shift)
            found = grad(y, shift, Tensor(dy)).numpy()
            np.testing.assert_allclose(found, true, rtol=4e-6)
            table = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
            found = grad(F.embedding(table, np.ones(rows, int)), table, Tensor(dy)).numpy()
            np.testing.assert_allclose(found[1], true, rtol=2e-7)
            found = grad(table[np.ones(rows, int)], table, Tensor(dy)).numpy()
            np.testing.assert_allclose(found[1], true, rtol=2e-7)


def test_gradients_of_positions_add_many_sequences() -> None:
    dy = np.random.default_rng(5).random((60_000, 2, 3)).astype(np.float32)
    ids = np.zeros((60_000, 2), int)
    saved = ids, (1, 3), (2, 3)
    _, found, _ = embedding_with_positions.backward(np, dy, saved, (False, True, False))
    np.testing.assert_allclose(found, dy.astype(np.float64).sum(0), rtol=4e-6)


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij->j", [(60_000, 3)]),
        ("ij,j->j", [(60_000, 3), (3,)]),
        ("ij,ij->j", [(60_000, 3), (60_000, 3)]),
        ("ij,ij->", [(60_000, 3), (60_000, 3)]),
        ("bni,bnj->bji", [(2, 30_000, 3), (2, 30_000, 4)]),
        ("nib,bnj->jbi", [(3000, 3, 2), (2, 3000, 4)]),
        ("ni,n->i", [(60_000, 3), (60_000,)]),
        ("ni,nj->ij", [(60_000, 3), (60_000, 1)]),
        ("abi,cba->ic", [(200, 150, 2), (3, 150, 200)]),
        ("ij,ik->j", [(20_000, 3), (20_000, 4)]),
        ("i,j->", [(20_000,), (3,)]),
        ("ni,nj->ij", [(1, 3), (20_000, 2)]),
    ],
)
def test_einsum_adds_many_products(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(4)
    arrays = [rng.random(shape).astype(np.float32) for shape in shapes]
    wide = [a.astype(np.float64) for a in arrays]
    wanted = np.einsum(subscripts, *wide)
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    y = mg.einsum(subscripts, *leaves)
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y.numpy(), wanted, rtol=3e-6)
    exact = [Tensor(a, requires_grad=True) for a in wide]
    dy = rng.random(y.shape).astype(np.float32)
    found = grad(y, leaves, Tensor(dy))
    true = grad(mg.einsum(subscripts, *exact), exact, Tensor(dy))
    for g, t in zip(found, true, strict=True):
        np.testing.assert_allclose(g.numpy(), t.numpy(), rtol=3e-6)


def test_scattered_numbers_are_added_in_double_precision() -> None:
    found = scatter_add(np, np.ones(3, np.float32) * np.float32(2**24), np.array([1, 1, 0]), (2,))
    assert found.dtype == np.float32
    assert found.tolist() == [2**24, 2**25]
    tiny = np.concatenate([[2.0**24], np.ones(4096)]).astype(np.float32)
    assert scatter_add(np, tiny, np.zeros(4097, int), (1,)).item() == 2**24 + 4096
    counted = scatter_add(np, np.array([1, 2, 4]), np.array([0, 0, 1]), (2,))
    assert counted.dtype.kind == "i"
    assert counted.tolist() == [3, 4]


@pytest.mark.parametrize("offset", [1000.1, -7.7e4, 3e6])
@pytest.mark.parametrize("channels", [3, 768, 1000])
def test_constant_rows_have_no_spread(offset: float, channels: int) -> None:
    """768 times 1000.1 was once normalized to 0.13, because float32 cannot represent the mean."""
    x = np.full((4, 5, channels), offset, np.float32)
    assert np.abs(centred(np, x, -1)).max() <= 1e-6 * abs(offset) * 1e-3
    assert mg.var(x, -1).numpy().max() <= (1e-9 * offset) ** 2
    for context in (mg.textbook, mg.enable_grad):
        with context():
            y = F.layer_norm(Tensor(x), None, None).numpy()
            assert np.abs(y).max() <= 1e-4 * max(1, abs(offset) / 1e5)
            y = F.add_layer_norm(Tensor(x), Tensor(x), None, None).numpy()
            assert np.abs(y).max() <= 1e-4 * max(1, abs(offset) / 1e5)


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
def test_spread_beside_a_large_mean(offset: float) -> None:
    """Accurate for the numbers as float32 holds them; some rows are far from 0, others are not."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((40, 384)) + offset * (np.arange(40) % 2)[:, None]).astype(np.float32)
    wide = x.astype(np.float64)
    true = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(mg.var(x, -1).numpy(), wide.var(-1), rtol=2e-6)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    with mg.textbook():
        exact = Tensor(wide, requires_grad=True)
        wanted = grad(F.layer_norm(exact, None, None), exact, Tensor(dy)).numpy()
    for context in (mg.textbook, mg.enable_grad):
        with context():
            t = Tensor(x, requires_grad=True)
            y = F.layer_norm(t, None, None)
            np.testing.assert_allclose(y.numpy(), true, atol=4e-6)
            np.testing.assert_allclose(grad(y, t, Tensor(dy)).numpy(), wanted, atol=2e-5)
