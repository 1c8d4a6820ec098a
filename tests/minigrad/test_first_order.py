"""Graphs that free intermediates that are not saved for backward: same gradients, less memory."""

import gc
import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, nn
from minigrad.state import first_order


def model_loss(x: Tensor, layer: nn.Linear) -> Tensor:
    hidden = layer(x, activation="relu") * 2.0
    return (mg.exp(hidden[:, ::2]).sum() + (x * x).sum()) * 0.5


def test_the_gradients_are_the_same() -> None:
    rng = mg.Generator(0)
    layer = nn.Linear(4, 6, rng=rng, dtype=np.float64)
    x = Tensor(np.random.default_rng(0).standard_normal((3, 4)), requires_grad=True)
    wanted = mg.grad(model_loss(x, layer), [x, *layer.parameters()])
    with first_order():
        loss = model_loss(x, layer)
    for got, want in zip(mg.grad(loss, [x, *layer.parameters()]), wanted, strict=True):
        np.testing.assert_array_equal(got.numpy(), want.numpy())


def array_lives_on() -> bool:
    """Whether a result that no op saves is still in memory when the graph is complete."""
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    middle = x + 1.0  # no backward needs its values
    array = weakref.ref(middle.data)
    y = (middle + 2.0).sum()
    del middle
    gc.collect()
    assert y.node is not None
    return array() is not None


def test_arrays_that_nobody_saved_are_free_at_once() -> None:
    assert array_lives_on()
    with first_order():
        assert not array_lives_on()


def test_create_graph_says_what_to_do() -> None:
    x = Tensor(np.ones(3), requires_grad=True)
    with first_order():
        y = mg.exp(x * 2.0).sum()
    with pytest.raises(mg.GraphFreedError, match=r"'sum'.*first_order\(\).*outside"):
        mg.grad(y, x, create_graph=True)


def test_a_change_in_place_is_still_seen() -> None:
    x = Tensor(np.ones(3), requires_grad=True)
    with first_order():
        z = mg.exp(x[:2]).sum()
    x.assign(np.zeros(3))
    with pytest.raises(mg.InPlaceError, match="'exp'"):
        z.backward()
