"""Gradients are written into arrays of the caller, by the engine or by kernels."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, nn
from minigrad.autograd import add_gradients, write_gradients
from minigrad.nn import functional as F


def leaf(*shape: int, dtype: Any = np.float64) -> Tensor:
    values = np.random.default_rng(len(shape)).standard_normal(shape)
    return Tensor(values.astype(dtype), requires_grad=True)


def garbage(*tensors: Tensor) -> list[np.ndarray]:
    return [np.full(t.shape, np.nan, t.dtype) for t in tensors]


def test_old_contents_are_overwritten_and_unused_leaves_get_zeros() -> None:
    x, y, unused = leaf(3, 4), leaf(4), leaf(2)
    places = garbage(x, y, unused)
    write_gradients((x * y * y).sum(), [x, y, unused], places)
    np.testing.assert_allclose(places[0], np.broadcast_to(y.numpy() ** 2, (3, 4)))
    np.testing.assert_allclose(places[1], 2 * y.numpy() * x.numpy().sum(0))
    np.testing.assert_array_equal(places[2], np.zeros(2))
    assert x.grad is None and y.grad is None


def test_the_output_may_be_a_leaf_and_other_leaves_are_left_out() -> None:
    x, y = leaf(), leaf(3)
    places = garbage(x)
    write_gradients(x, [x], places)
    assert places[0] == 1
    loss = (x * y).sum()
    write_gradients(loss, [x], places)
    np.testing.assert_allclose(places[0], y.numpy().sum())
    assert y.grad is None
    with pytest.raises(mg.GraphFreedError):
        write_gradients(loss, [x], places)


@pytest.mark.parametrize("function", [add_gradients, write_gradients])
def test_a_tensor_that_is_given_twice(function: Any) -> None:
    x = leaf(2)
    with pytest.raises(ValueError, match="given twice"):
        function(x.sum(), [x, x], garbage(x, x))


class doubled(mg.Op):
    """z = 2x + w"""

    @staticmethod
    def forward(xp: Any, x: Any, w: Any) -> Any:
        return 2 * x + w, None

    @staticmethod
    def backward(xp: Any, dz: Any, saved: Any, needs: Any) -> Any:
        return 2 * dz, dz


class Doubling:
    """y = 2x + w as a kernel that records which output buffers it was given."""

    def __init__(self, use: bool) -> None:
        self.use, self.offered, self.slope = use, [], 2.0

    def forward(self, x: Any, w: Any) -> Any:
        return 2 * x + w, None

    def backward(self, dy: Any, saved: Any, needs: Any) -> Any:
        return 2 * dy, dy.copy()

    def backward_into(self, dy: Any, saved: Any, needs: Any, places: Any) -> Any:
        self.offered.append(places)
        dx = np.multiply(dy, self.slope, out=places[0] if self.use else None)
        dw = np.multiply(dy, 1, out=places[1] if self.use else None)
        return dx, dw


@pytest.fixture(params=[True, False], ids=["uses its places", "does not use them"])
def doubling(request: pytest.FixtureRequest) -> Doubling:
    return mg.kernel(doubled, "cpu")(Doubling(request.param))


def test_a_place_for_what_nothing_has_been_written_to(doubling: Doubling) -> None:
    x, w = leaf(3), leaf(3)
    places = garbage(x, w)
    write_gradients(doubled(x, w).sum(), [x, w], places)
    (offered,) = doubling.offered
    assert offered[0] is places[0] and offered[1] is places[1]
    np.testing.assert_array_equal(places[0], [2, 2, 2])
    np.testing.assert_array_equal(places[1], [1, 1, 1])


def test_a_second_use_is_added(doubling: Doubling) -> None:
    x, w = leaf(3), leaf(3)
    places = garbage(x, w)
    y = doubled(doubled(x, w), w)  # 4x + 3w
    write_gradients(y.sum(), [x, w], places)
    (no_leaf, place_of_w), (place_of_x, taken) = doubling.offered
    assert no_leaf is None and place_of_w is places[1]
    assert place_of_x is places[0] and taken is None
    np.testing.assert_array_equal(places[0], [4, 4, 4])
    np.testing.assert_array_equal(places[1], [3, 3, 3])


def test_a_leaf_that_an_op_reads_twice_is_offered_once(doubling: Doubling) -> None:
    x = leaf(3)
    places = garbage(x)
    write_gradients(doubled(x, x).sum(), [x], places)
    assert doubling.offered[0][0] is places[0] and doubling.offered[0][1] is None
    np.testing.assert_array_equal(places[0], [3, 3, 3])


def test_no_place_for_what_needs_no_gradient_or_is_not_wanted(doubling: Doubling) -> None:
    x, frozen, elsewhere = leaf(3), leaf(3), leaf(3)
    frozen.requires_grad = False
    places = garbage(x, frozen)
    write_gradients(doubled(x, frozen).sum(), [x, frozen], places)
    write_gradients(doubled(x, elsewhere).sum(), [x, frozen], places)
    assert [offered[1] for offered in doubling.offered] == [None, None]
    np.testing.assert_array_equal(places[1], np.zeros(3))


def test_a_place_of_another_dtype_is_not_offered_but_filled(doubling: Doubling) -> None:
    x, w = leaf(3), leaf(3)
    place = np.full(3, np.nan, np.float32)
    write_gradients(doubled(x, w).sum(), [x], [place])
    assert doubling.offered[0] == (None, None)
    np.testing.assert_array_equal(place, np.full(3, 2, np.float32))


def test_places_are_only_offered_to_write_gradients(doubling: Doubling) -> None:
    x, w = leaf(3), leaf(3)
    mg.grad(doubled(x, w).sum(), [x, w])
    doubled(x, w).sum().backward()
    add_gradients(doubled(x, w).sum(), [x, w], [np.zeros(3), np.zeros(3)])
    assert doubling.offered == []


def test_detect_nan_looks_at_what_was_written(doubling: Doubling) -> None:
    x, w = leaf(3), leaf(3)
    doubling.slope = np.nan
    with mg.detect_nan(), pytest.raises(mg.NonFiniteError, match="backward of doubled"):
        write_gradients(doubled(x, w).sum(), [x, w], garbage(x, w))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_gets_the_gradients_that_backward_gives(dtype: Any) -> None:
    """Tied weights: the final layer's gradient is written, the embedding's added to it."""
    rng = mg.Generator(0)
    table = nn.Parameter(rng.normal((7, 4), 0.0, 1.0, dtype))
    norm, layer = nn.LayerNorm(4, dtype=dtype), nn.Linear(4, 4, rng=rng, dtype=dtype)
    ids = np.arange(10).reshape(2, 5) % 7
    parameters = [table, *norm.parameters(), *layer.parameters()]

    def loss() -> Tensor:
        x = F.embedding(table, ids)
        x = norm(layer(x, activation="relu"), x)
        return F.cross_entropy(F.linear(x, table), (ids + 1) % 7)

    places = garbage(*parameters)
    write_gradients(loss(), parameters, places)
    for place, wanted in zip(places, mg.grad(loss(), parameters), strict=True):
        np.testing.assert_array_equal(place, wanted.numpy())
