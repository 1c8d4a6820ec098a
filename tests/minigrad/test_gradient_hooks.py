"""`Tensor.register_hook`: functions that are called with a finished gradient and may change it."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor, grad, nn, optim
from minigrad.autograd import add_gradients, write_gradients


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


def test_a_hook_sees_the_whole_gradient_once_and_changes_it() -> None:
    x, seen = leaf(1.0, 2.0), []
    y = x * 3
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    (y.sum() + (y * y).sum()).backward()  # dy = 1 + 2y, a sum of two gradients
    assert seen == [[7, 13]]
    assert x.grad.tolist() == [210, 390]


def test_a_hook_of_a_leaf_comes_before_its_grad_grows() -> None:
    x, seen = leaf(1.0, 2.0), []
    x.register_hook(lambda g: seen.append(g.tolist()))
    x.register_hook(lambda g: g * 2)
    for _ in range(2):
        ((x * x).sum() + x.sum()).backward()
    assert seen == [[3, 5], [3, 5]]
    assert x.grad.tolist() == [12, 20]


def test_hooks_are_removed_one_by_one() -> None:
    x = leaf(1.0)
    removes = [x.register_hook(lambda g, k=k: g * k) for k in (2, 3)]
    assert grad(x.sum(), x).tolist() == [6]
    removes[0]()
    assert grad(x.sum(), x).tolist() == [3]
    removes[1]()
    removes[1]()
    assert grad(x.sum(), x).tolist() == [1]


def test_grad_hands_out_what_hooks_give() -> None:
    x = leaf(2.0)
    y = x * x
    y.register_hook(lambda g: g + 1)
    x.register_hook(lambda g: -g)
    dx, dy = grad((y * 5).sum(), [x, y])
    assert dy.tolist() == [6] and dx.tolist() == [-24]


def test_hooks_are_part_of_higher_derivatives() -> None:
    x = leaf(2.0)
    y = x**3
    y.register_hook(lambda g: g * x)  # dx = x·3x², and its derivative 9x²
    dx = grad(y.sum(), x, create_graph=True)
    assert dx.tolist() == [24] and grad(dx.sum(), x).tolist() == [36]


@pytest.mark.parametrize("into, wanted", [(write_gradients, [4, 8]), (add_gradients, [104, 108])])
def test_gradients_that_are_written_to_arrays_go_through_hooks(into: Any, wanted: Any) -> None:
    layer, place = leaf(1.0, 2.0), np.array([100.0, 100.0])
    layer.register_hook(lambda g: g * 2)
    other = leaf(1.0, 1.0)
    places = [place, np.zeros(2)]
    into((layer * layer).sum() + other.sum(), [layer, other], places)
    assert place.tolist() == wanted and places[1].tolist() == [1, 1]


def test_a_hooked_weight_that_a_kernel_could_write_in_place(rng: np.random.Generator) -> None:
    x = Tensor(rng.standard_normal((3, 4)))
    plain, hooked = (nn.Linear(4, 2, rng=mg.Generator(1), dtype=np.float64) for _ in range(2))
    hooked.weight.register_hook(lambda g: -g)
    found = []
    for layer in (plain, hooked):
        arrays = [np.full(p.shape, np.nan) for p in layer.parameters()]
        write_gradients((layer(x) ** 2).sum(), list(layer.parameters()), arrays)
        found.append(arrays)
    np.testing.assert_array_equal(found[1][0], -found[0][0])
    np.testing.assert_array_equal(found[1][1], found[0][1])


def test_a_hooked_leaf_without_a_gradient_gets_zeros() -> None:
    x, unused, place = leaf(1.0), leaf(1.0), np.full(1, np.nan)
    unused.register_hook(lambda g: g + 1)
    write_gradients(x.sum(), [x, unused], [np.empty(1), place])
    assert place.tolist() == [0]


def test_a_frozen_row_stays_while_an_optimizer_steps() -> None:
    weight = nn.Parameter(np.ones((2, 2), np.float32))
    weight.register_hook(lambda g: g * Tensor(np.array([[1.0], [0.0]], np.float32)))
    optimizer = optim.SGD([weight], lr=0.5)
    weight.sum().backward()
    optimizer.step()
    assert weight.tolist() == [[0.5, 0.5], [1, 1]]


def test_mistakes_are_said() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match="does not require a gradient"):
        mg.ones(2).register_hook(lambda g: g)
    remove = x.register_hook(lambda g: 3)
    with pytest.raises(TypeError, match="Tensor or None, not a int"):
        x.sum().backward()
    remove()
    x.register_hook(lambda g: g.sum())
    with pytest.raises(ShapeError, match=r"shape \(\) for a gradient of shape \(2,\)"):
        x.sum().backward()


def test_the_gradient_has_the_dtype_of_its_tensor() -> None:
    x = Tensor(np.array([1.0], np.float32), requires_grad=True)
    x.register_hook(lambda g: g.astype("float64") * 2)
    x.sum().backward()
    assert x.grad.dtype == np.float32 and x.grad.tolist() == [2]


def test_copies_have_no_hooks() -> None:
    x = nn.Parameter([1.0])
    x.register_hook(lambda g: g * 2)
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert grad(other.sum(), other).tolist() == [1]
