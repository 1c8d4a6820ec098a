"""Gradients of a tensor's parts are added in place, so n parts cost as much as the whole."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from minigrad.autograd import add_gradients, write_gradients
from minigrad.ops import indexing


@pytest.mark.parametrize("retain_graph", [False, True])
def test_parts_of_a_tensor_add_to_one_sum(
    retain_graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Iterating costs one full gradient, not one for each element."""
    made = []
    real = indexing.scatter
    monkeypatch.setattr(indexing, "scatter", lambda *args: made.append(1) or real(*args))
    leaf = Tensor(np.arange(12.0).reshape(6, 2), requires_grad=True)
    for x in (leaf, leaf * 1):
        made.clear()
        leaf.grad = None
        y = sum((row.sum() * i for i, row in enumerate(x)), Tensor(np.zeros(())))
        y = y + x[[0, 0, 1]].sum() + x[x > 10].sum() + x[0, 0]
        for _ in range(1 + retain_graph):
            y.backward(retain_graph=retain_graph)
        want = np.repeat(np.arange(6.0)[:, None], 2, 1)
        want[0] += 2
        want[1] += 1
        want[0, 0] += 1
        want[5, 1] += 1
        assert np.array_equal(leaf.grad.numpy(), want * (1 + retain_graph))
        assert len(made) == 1 + retain_graph


def test_parts_add_to_arrays_and_to_grads() -> None:
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    want = mg.grad(sum((row * row).sum() for row in x), x)
    assert np.array_equal(want.numpy(), 2 * x.numpy())
    for function in (add_gradients, write_gradients):
        place = np.zeros((3, 2))
        function(sum((row * row).sum() for row in x), [x], [place])
        assert np.array_equal(place, 2 * x.numpy())
    with mg.detect_nan():
        assert np.array_equal(mg.grad(sum((r * r).sum() for r in x), x).numpy(), want.numpy())
    first = mg.grad(sum((row**3).sum() for row in x), x, create_graph=True)
    assert np.array_equal(mg.grad(first.sum(), x).numpy(), 6 * x.numpy())


def test_the_upstream_gradient_is_never_added_to() -> None:
    x = Tensor(np.ones(3), requires_grad=True)
    upstream = Tensor(np.ones(3))
    grad = mg.grad([x * 1, x[0]], x, [upstream, Tensor(np.array(5.0))])
    assert grad.tolist() == [6, 1, 1] and upstream.tolist() == [1, 1, 1]
    y = x * 1
    grads = mg.grad([y, y[0]], [y, x], [upstream, Tensor(np.array(5.0))])
    assert [g.tolist() for g in grads] == [[6, 1, 1], [6, 1, 1]] and upstream.tolist() == [1, 1, 1]
