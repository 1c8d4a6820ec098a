"""In-place operators and assignment to items: what they change, and when they raise an error."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import InPlaceError, ShapeError, Tensor, nn
from minigrad.optim import SGD

OPERATORS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any], Any]] = {
    "+=": (operator.iadd, operator.add, 0.5),
    "-=": (operator.isub, operator.sub, 0.5),
    "*=": (operator.imul, operator.mul, 0.5),
    "/=": (operator.itruediv, operator.truediv, 0.5),
    "**=": (operator.ipow, operator.pow, 2),
    "@=": (operator.imatmul, operator.matmul, np.array([[0.0, 2.0], [1.0, 0.0]], np.float32)),
}
ALL = pytest.mark.parametrize(("change", "plain", "y"), OPERATORS.values(), ids=OPERATORS)


def matrix(requires_grad: bool = False) -> Tensor:
    return Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=requires_grad)


@ALL
def test_a_leaf_is_changed_in_place_under_no_grad(change: Any, plain: Any, y: Any) -> None:
    p = nn.Parameter(matrix())
    memory, expected = p.data, plain(p.numpy().copy(), y)
    optimizer = SGD([p], lr=1.0)
    with mg.no_grad():
        result = change(p, y)
    assert result is p and p.data is memory and type(p) is nn.Parameter
    np.testing.assert_array_equal(p.numpy(), expected)
    assert p.requires_grad and p.is_leaf
    (p * 1).sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(p.numpy(), expected - 1)


@ALL
def test_a_leaf_is_not_changed_while_ops_are_recorded(change: Any, plain: Any, y: Any) -> None:
    p = matrix(requires_grad=True)
    for value in (y, Tensor(y)) if not isinstance(y, int) else (y,):
        with pytest.raises(InPlaceError, match=r"leaf of shape \(2, 2\).*minigrad\.no_grad\(\)"):
            change(p, value)
    assert p.tolist() == matrix().tolist()


@ALL
def test_a_plain_tensor_is_changed_with_its_views_and_aliases(
    change: Any, plain: Any, y: Any
) -> None:
    x = matrix()
    alias, view, detached, memory = x, x[0], x.detach(), x.numpy()
    expected = plain(memory.copy(), y)
    x = change(x, y)
    for same in (x, alias, detached, memory):
        np.testing.assert_array_equal(np.asarray(same), expected)
    np.testing.assert_array_equal(view.numpy(), expected[0])


@ALL
def test_a_result_of_an_op_makes_a_new_tensor(change: Any, plain: Any, y: Any) -> None:
    x = Tensor(matrix().numpy().astype(np.float64), requires_grad=True)

    def function(x: Tensor) -> Tensor:
        h = before = x * 2
        squares = before * before
        h = change(h, y)
        assert h is not before and before.tolist() == (x * 2).tolist()
        return h + squares

    assert mg.gradcheck(function, [x])
    with pytest.raises(InPlaceError, match=r"result of 'multiply'.*no_grad\(\)"), mg.no_grad():
        h = x * 2
        with mg.enable_grad():
            h = x * 2
        change(h, y)


def test_a_sum_of_losses_stays_in_the_graph() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    total = start = Tensor(0.0)
    for i in range(3):
        total += (i * x).sum()
    assert mg.grad(total, x).tolist() == [3, 3] and start.item() == 0
    with mg.no_grad():
        start += (x * x).sum()
    assert start.item() == 5 and not start.requires_grad


def test_the_rule_of_dtypes() -> None:
    for change in (operator.iadd, operator.isub, operator.imul):
        x = Tensor([1, 2])
        with pytest.raises(TypeError, match="dtype int64 cannot hold a result of dtype float"):
            change(x, 0.5)
        with pytest.raises(TypeError, match=r"\.astype\('float\d\d'\)"):
            change(x, mg.ones(2))
        assert x.tolist() == [1, 2] and change(x, 2).dtype == np.int64
    with pytest.raises(TypeError, match="int64"):
        operator.itruediv(Tensor([4]), 2)
    with pytest.raises(TypeError, match="bool"):
        operator.iadd(Tensor([True]), 1)
    narrow = mg.ones(2)
    narrow += np.full(2, 0.5)
    assert narrow.dtype == np.float32 and narrow.tolist() == [1.5, 1.5]
    mask = Tensor([True, False])
    mask &= Tensor([True, True])
    mask |= np.array([False, True])
    assert mask.tolist() == [True, True]
    with pytest.raises(TypeError, match="dtype bool cannot hold"):
        mask &= Tensor([1, 0])


def test_broadcasting_never_grows_the_left_side() -> None:
    x = mg.ones(3)
    x += Tensor(1.0)
    x += mg.ones((1,))
    assert x.tolist() == [3, 3, 3]
    for other in (mg.ones((2, 3)), mg.ones((1, 3))):
        with pytest.raises(ShapeError, match=r"result has shape \(\d, 3\), the tensor \(3,\)"):
            x += other
    with pytest.raises(ShapeError):
        operator.iadd(mg.ones(1), mg.ones(3))
    with pytest.raises(ShapeError):
        operator.imatmul(mg.ones((2, 2)), mg.ones((2, 3)))
    with pytest.raises(ShapeError):
        operator.iadd(mg.ones(3), mg.ones(2))
    p = nn.Parameter(mg.ones(3))
    with mg.no_grad(), pytest.raises(ShapeError):
        p -= mg.ones((2, 3))
    assert p.tolist() == [1, 1, 1] and x.tolist() == [3, 3, 3]


def test_operands_that_overlap() -> None:
    x = mg.arange(5.0)
    x[1:] += x[:-1]
    assert x.tolist() == [0, 1, 3, 5, 7]
    x += x
    assert x.tolist() == [0, 2, 6, 10, 14]
    x -= x[::-1]
    assert x.tolist() == [-14, -8, 0, 8, 14]


def test_items_with_operators() -> None:
    x = mg.zeros((2, 3))
    x[0] += 1
    x[:, 1] -= 2
    x[1, [0, 2]] += 5  # Python changes a copy and assigns it back
    x[x < 0] *= 10
    assert x.tolist() == [[1, -10, 1], [5, -20, 5]]
    p = nn.Parameter(mg.ones(3))
    with pytest.raises(InPlaceError, match="part of a graph"):
        p[0] += 1
    with mg.no_grad():
        p[0] += 1
        p[1] = 7
        p[[2]] -= Tensor([4.0])
    assert p.tolist() == [2, 7, -3] and p.requires_grad
    with pytest.raises(InPlaceError, match="the assigned value is part of a graph"):
        x[0] += p
    h = p * 2
    with mg.no_grad(), pytest.raises(InPlaceError, match="this tensor is part of a graph"):
        h[0] = 1.0
    assert h.tolist() == [4, 14, -6]


def test_a_graph_notices_each_change() -> None:
    def assign(p: Tensor) -> None:
        p.assign([9.0, 9.0])

    def iadd(p: Tensor) -> None:
        p += 1

    def item(p: Tensor) -> None:
        p[0] = 5

    def item_op(p: Tensor) -> None:
        p[0] += 5

    def view(p: Tensor) -> None:
        v = p[:1]
        v *= 2

    def detached(p: Tensor) -> None:
        d = p.detach()
        d -= 1

    def step(p: Tensor) -> None:
        p.grad = mg.ones(2)
        SGD([p], lr=0.1).step()

    for change in (assign, iadd, item, item_op, view, detached, step):
        p = Tensor([1.0, 2.0], requires_grad=True)
        y = (p * p).sum()
        with mg.no_grad():
            change(p)
        with pytest.raises(InPlaceError, match=r"'multiply': its input 0 of shape \(2,\)"):
            y.backward()
        y = (p * p).sum()
        y.backward()
        p.grad = None


def test_results_that_ops_have_saved_are_watched() -> None:
    for function in (mg.exp, mg.sqrt, mg.sigmoid, mg.softmax):
        x = Tensor([1.0, 2.0], requires_grad=True)
        with mg.textbook():  # the kernel of sigmoid saves the derivative in place of the result
            y = function(x)
        y.detach()[0] = 7.0
        with pytest.raises(InPlaceError, match="its result was changed in place"):
            y.backward(mg.ones(2))
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x + 1  # addition saves nothing
    y.detach()[0] = 7.0
    (y * y).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [14, 6]


def test_read_only_memory_stays_as_it_is() -> None:
    array = np.ones(3)
    array.flags.writeable = False
    x = Tensor(array)
    for change in (
        lambda: operator.iadd(x, 1),
        lambda: x.__setitem__(0, 5),
        lambda: x.assign([1] * 3),
    ):
        with pytest.raises(ValueError, match="read-only"):
            change()
    assert array.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        operator.iadd(mg.broadcast_to(Tensor(1.0), (3,)), 1)


def test_gradient_descent_by_hand() -> None:
    rng = mg.Generator(0)
    layer = nn.Linear(3, 1, rng=rng)
    x, losses = rng.normal((16, 3)), []
    for _ in range(20):
        loss = ((layer(x) - x[:, :1]) ** 2).mean()
        loss.backward()
        with mg.no_grad():
            layer.weight -= 0.1 * layer.weight.grad
            layer.bias -= 0.1 * layer.bias.grad
        layer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0] and len(layer.parameters()) == 2
