"""Reverse-mode differentiation: the graph, its memory, and the functions that give gradients."""

import threading
import weakref
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import GraphFreedError, InPlaceError, Tensor, autograd, grad, nn, value_and_grad
from minigrad.autograd import add_gradients
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_close, float64

# Graphs of every form


@pytest.mark.parametrize("ops", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_long_chain(ops: int) -> None:
    (x,) = float64([1.0, -2.0])
    y = x
    for _ in range(ops // 2):
        y = (y + 1e-5) * 1.0
    y.sum().backward(retain_graph=True)
    assert x.grad is not None and x.grad.tolist() == [1, 1]
    end = weakref.ref(y)
    del y
    assert end() is None, "the whole chain is given back, without recursion and without cycles"


def test_create_graph_over_a_long_chain() -> None:
    (x,) = float64(1.0)
    y = x
    for _ in range(3000):
        y = y * x * 0.5 + 0.5
    (first,) = grad(y, [x], create_graph=True)
    second = grad(first, x)
    assert np.isfinite(second.item()) and second.item() != 0


def test_a_tensor_that_is_used_many_times() -> None:
    (x,) = float64([2.0, 3.0])
    y = x * x + x * 3 + mg.exp(x) / x - x
    for _ in range(100):
        y = y + x
    values = x.numpy()
    expected = 2 * values + 2 + np.exp(values) * (values - 1) / values**2 + 100
    assert_close(grad(y.sum(), x).numpy(), expected)


def test_a_diamond_is_visited_once() -> None:
    """60 diamonds in a row have 2⁶⁰ paths, but 120 nodes."""
    (x,) = float64(1.0)
    y = x
    for _ in range(60):
        y = y + y
    assert grad(y, x).item() == 2.0**60


def test_numbers_without_axes() -> None:
    (x,) = float64(3.0)
    y = x * x
    y.backward()
    assert x.grad is not None and x.grad.shape == () and x.grad.item() == 6
    assert isinstance(x.grad.data, np.ndarray)


def test_a_leaf_is_its_own_output() -> None:
    x = Tensor(5.0, requires_grad=True)
    x.backward()
    assert x.grad is not None and x.grad.item() == 1
    assert grad(x, x).item() == 1


def test_float32_and_float64_mix() -> None:
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    y = Tensor(np.full(2, 2.0), requires_grad=True)
    ((x * y).astype(np.float32) * x).sum().backward()
    assert x.grad is not None and x.grad.dtype == np.float32 and x.grad.tolist() == [4, 4]
    assert y.grad is not None and y.grad.dtype == np.float64 and y.grad.tolist() == [1, 1]


def test_the_upstream_takes_the_dtype_of_the_output() -> None:
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    for upstream in (Tensor(np.array([1.0, 2.0])), np.array([1.0, 2.0]), Tensor([1, 2]), [1, 2]):
        for create_graph in (False, True):
            gradient = grad(x * 1, x, upstream, create_graph=create_graph)
            assert gradient.dtype == np.float32 and gradient.tolist() == [1, 2]


# backward()


def test_backward_adds_to_grad() -> None:
    (x,) = float64([1.0, 2.0])
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [5, 5]


def test_a_second_backward_through_a_freed_graph() -> None:
    (x,) = float64([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GraphFreedError, match=r"'sum'.*Run the forward pass again.*retain_graph"):
        y.backward()
    with pytest.raises(GraphFreedError, match="retain_graph=True"):
        grad(y, x)
    assert x.grad is not None and x.grad.tolist() == [2, 4], "the failed pass changed nothing"


def test_a_graph_that_is_partly_freed() -> None:
    (x,) = float64([1.0, 2.0])
    hidden = mg.exp(x)
    (hidden * 2).sum().backward()
    before = x.grad.tolist() if x.grad is not None else None
    other = (hidden * 3).sum()
    with pytest.raises(GraphFreedError, match="'exp'"):
        other.backward()
    assert x.grad is not None and x.grad.tolist() == before


def test_the_function_frees_the_graph_as_the_method_does() -> None:
    x = Tensor(3.0, requires_grad=True)
    y = x * x
    autograd.backward(y)
    assert x.grad is not None and x.grad.item() == 6
    with pytest.raises(GraphFreedError):
        autograd.backward(y)


def test_a_broadcast_tensor_that_is_used_twice_has_second_derivatives() -> None:
    (x,) = float64([3.0])
    a = Tensor(np.array([1.0, 2.0, 4.0]))
    y = (x * a * x).sum()  # 7x²
    g = grad(y, x, create_graph=True)
    assert g.tolist() == [42]
    assert grad(g.sum(), x).tolist() == [14]
    assert a.tolist() == [1, 2, 4]


def test_retain_graph() -> None:
    (x,) = float64([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None and x.grad.tolist() == [4, 8]
    with pytest.raises(GraphFreedError):
        y.backward()


def test_leaves_that_nobody_needs() -> None:
    x, unused, frozen = float64([1.0], [2.0], [3.0])
    frozen.requires_grad = False
    y = x * frozen
    _ = unused * 2
    y.sum().backward()
    assert x.grad is not None and unused.grad is None and frozen.grad is None


def test_results_keep_no_grad() -> None:
    (x,) = float64([1.0])
    y = x * 2
    (y * 3).sum().backward()
    assert y.grad is None and x.grad is not None


def test_what_cannot_be_differentiated() -> None:
    x = mg.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match=r"shape \(3,\) does not require a gradient.*no_grad"):
        mg.ones(3).backward()
    with pytest.raises(ValueError, match=r"shape \(3,\) needs an upstream gradient.*\.sum\(\)"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"upstream gradient has shape \(2,\), the output \(3,\)"):
        (x * 2).backward(mg.ones(2))


# Memory


def test_what_was_saved_is_freed_as_soon_as_it_was_used() -> None:
    (x,) = float64([1.0, 2.0])
    hidden = mg.exp(x)
    saved = weakref.ref(hidden.data)
    y = mg.tanh(hidden).sum()
    del hidden
    assert saved() is not None, "exp saves its result"
    y.backward()
    assert saved() is None


def test_what_was_saved_dies_with_the_graph() -> None:
    (x,) = float64([1.0, 2.0])
    y = mg.exp(x)
    saved = weakref.ref(y.data)
    y = y.sum()
    del y
    assert saved() is None, "no reference cycle keeps it until a garbage collection"


def test_no_grad_keeps_nothing() -> None:
    (x,) = float64([1.0, 2.0])
    with mg.no_grad():
        y = mg.exp(x)
        saved = weakref.ref(y.data)
        y = mg.tanh(y)
    assert saved() is None and not y.requires_grad and y.is_leaf


def test_gradients_share_no_memory(rng: np.random.Generator) -> None:
    """Not with each other, the upstream gradient, the values, or arrays of the caller."""
    x, y, z = float64(*(rng.standard_normal((3, 3)) for _ in range(3)))
    upstream = Tensor(rng.standard_normal((3, 3)))
    first, second = x + y, x + y
    outputs = {
        "sum": x + y + z,
        "transposes": x.T + y.reshape(9).reshape(3, 3) + z[:],
        "parts": mg.concatenate([x[:1], y[1:2], z[2:]]),
        "stack": mg.stack([x[0], y[1], z[2]]),
        "shared": first + second + z,
        "norm": F.add_layer_norm(x, y, None, None) + z,
        "chosen": mg.where(np.eye(3, dtype=bool), x, y) + z,
        "broadcast": x + mg.broadcast_to(y[:1], (3, 3)) + z,
        "identity": mg.clip(x) + y.astype("f8") + z.squeeze(()),
    }
    for output in outputs.values():
        gradients = grad(output, [x, y, z], upstream)
        others = [upstream.data, x.data, y.data, z.data]
        arrays = [g.data for g in gradients] + others
        for i, g in enumerate(gradients):
            for j, array in enumerate(arrays):
                assert i == j or not np.shares_memory(g.data, array)
            assert g.data.flags.writeable


def test_gradients_in_grad_share_no_memory(rng: np.random.Generator) -> None:
    x, y = float64(rng.standard_normal(3), rng.standard_normal(3))
    upstream = Tensor(np.ones(3))
    (x + y).backward(upstream)
    assert x.grad is not None and y.grad is not None
    x.grad.data += 100
    assert y.grad.tolist() == upstream.tolist() == [1, 1, 1]
    (x * y).sum().backward()
    kept = x.grad
    (x * y).sum().backward()
    assert kept is x.grad, "a second gradient is added in place"


def test_the_same_input_twice_gives_two_gradients() -> None:
    (x,) = float64([1.0, 2.0])
    first, second = grad((x * x).sum(), [x, x])
    first.data += 1
    assert second.tolist() == [2, 4]


# grad()


def test_grad_leaves_grad_alone() -> None:
    x, w = float64([1.0, 2.0], [3.0, 4.0])
    assert grad((x * w).sum(), x).tolist() == [3, 4]
    assert x.grad is None and w.grad is None


def test_grad_of_results_in_the_middle() -> None:
    (x,) = float64([1.0, 2.0])
    hidden = x * 3
    y = (hidden * hidden).sum()
    dhidden, dx, dy = grad(y, [hidden, x, y])
    assert dhidden.tolist() == [6, 12] and dx.tolist() == [18, 36] and dy.item() == 1


def test_grad_of_several_outputs() -> None:
    (x,) = float64([1.0, 2.0])
    first, second = x * 2, (x * x).sum()
    assert grad(
        [first, second], x, [Tensor(np.array([1.0, 10.0])), None], retain_graph=True
    ).tolist() == [4, 24]
    assert grad([second, second], x, retain_graph=True).tolist() == [4, 8]
    with pytest.raises(ValueError, match="2 outputs but 1 grad_outputs"):
        grad([first, second], x, [Tensor(np.ones(2))])
    with pytest.raises(ValueError, match="2 outputs but 1 grad_outputs"):
        grad([first, second], x, Tensor(np.ones(2)))


def test_grad_visits_only_what_lies_between() -> None:
    """The op before the wanted tensor keeps its saved arrays, so its graph can still be used."""
    x, w = float64([1.0, 2.0], [3.0, 4.0])
    below = mg.exp(x)
    beside = mg.exp(w)
    y = (below * beside).sum()
    assert_close(grad(y, below).numpy(), np.exp([3.0, 4.0]))
    assert_close(grad(below.sum(), x).numpy(), np.exp([1.0, 2.0]))
    assert_close(grad(beside.sum(), w).numpy(), np.exp([3.0, 4.0]))


def test_an_input_that_is_not_used() -> None:
    x, unused = float64([1.0], [2.0])
    with pytest.raises(ValueError, match=r"do not depend on input 1 of shape \(1,\).*allow_unused"):
        grad((x * 2).sum(), [x, unused])
    dx, nothing = grad((x * 2).sum(), [x, unused], allow_unused=True)
    assert dx.tolist() == [2] and nothing is None
    with pytest.raises(ValueError, match=r"input 0 .* does not require a gradient"):
        grad((x * 2).sum(), mg.ones(1))


def test_value_and_grad_of_the_first_argument() -> None:
    def function(x: Tensor, power: int, *, scale: float) -> Tensor:
        return (x**power).sum() * scale

    value, gradient = value_and_grad(function)(Tensor(np.array([1.0, 2.0])), 3, scale=2.0)
    assert value.item() == 18 and gradient.tolist() == [6, 24]
    assert value.is_leaf
    value, gradient = value_and_grad(function)(3, 3, scale=1.0)
    assert value.item() == 27 and gradient.item() == 27


def test_value_and_grad_with_respect_to_parameters() -> None:
    layer, unused = nn.Linear(2, 1, rng=mg.Generator(0)), nn.Parameter([1.0])
    step = value_and_grad(lambda x: layer(x).sum(), [*layer.parameters(), unused])
    value, (dw, db, nothing) = step(mg.ones((3, 2)))
    assert value.shape == () and dw.tolist() == [[3, 3]] and db.tolist() == [3]
    assert nothing is None
    assert all(p.grad is None for p in layer.parameters())


def test_value_and_grad_can_be_nested() -> None:
    """The derivative of a derivative: (x³)'' = 6x."""
    first = lambda x: value_and_grad(lambda x: (x**3).sum(), create_graph=True)(x)[1].sum()  # noqa: E731
    _, second = value_and_grad(first)(Tensor(np.array([1.0, 2.0])))
    assert second.tolist() == [6, 12]


# Higher derivatives


def test_third_derivative() -> None:
    (x,) = float64([0.3, -0.7])
    y = mg.tanh(x).sum()
    for _ in range(3):
        y = grad(y, x, create_graph=True).sum()
    t = np.tanh(x.numpy())
    expected = ((1 - t**2) * (6 * t**2 - 2)).sum()
    assert_close(y.item(), expected)


def test_create_graph_also_under_no_grad() -> None:
    (x,) = float64([1.0, 2.0])
    y = (x * x * x + x[:1]).sum()
    with mg.no_grad():
        first = grad(y, x, create_graph=True)
    assert grad(first.sum(), x).tolist() == [6, 12]


class Block(nn.Module):
    """A small decoder layer, with every op of a transformer."""

    def __init__(self, rng: mg.Generator) -> None:
        self.embedding = nn.Embedding(5, 4, rng=rng, dtype=np.float64)
        self.qkv = nn.Linear(4, 12, rng=rng, dtype=np.float64)
        self.out = nn.Linear(4, 4, rng=rng, dtype=np.float64)
        self.norm1 = nn.LayerNorm(4, dtype=np.float64)
        self.norm2 = nn.RMSNorm(4, dtype=np.float64)
        self.fc1 = nn.Linear(4, 8, rng=rng, dtype=np.float64)
        self.fc2 = nn.Linear(8, 4, rng=rng, dtype=np.float64)

    def forward(self, ids: np.ndarray, targets: np.ndarray) -> Tensor:
        x = self.embedding(ids)
        x = self.norm1(x, self.out(F.multi_head_attention(self.qkv(x), num_heads=2)))
        x = self.norm2(x + self.fc2(F.gelu(self.fc1(x))))
        return F.cross_entropy(F.linear(x, self.embedding.weight), targets)


@pytest.mark.parametrize("context", [mg.enable_grad, mg.textbook])
def test_hessian_vector_product_of_a_transformer(context: Any, rng: np.random.Generator) -> None:
    block = Block(mg.Generator(0))
    ids, targets = rng.integers(0, 5, (2, 3)), rng.integers(0, 5, (2, 3))
    parameters = block.parameters()
    direction = [rng.standard_normal(p.shape) for p in parameters]

    def gradient() -> list[np.ndarray]:
        return [g.numpy() for g in grad(block(ids, targets), parameters)]

    with context():
        first = grad(block(ids, targets), parameters, create_graph=True)
        along = sum(((g * d).sum() for g, d in zip(first, direction, strict=True)), Tensor(0.0))
        product = grad(along, parameters)
        for sign in (1, -1):
            for p, d in zip(parameters, direction, strict=True):
                p.assign(p.numpy() + sign * 1e-5 * d)
            moved = gradient()
            for p, d in zip(parameters, direction, strict=True):
                p.assign(p.numpy() - sign * 1e-5 * d)
            if sign == 1:
                above = moved
    for h, high, low in zip(product, above, moved, strict=True):
        assert_close(h.numpy(), (high - low) / 2e-5, 1e-8)


# Switches


def test_no_grad_and_enable_grad() -> None:
    x = mg.ones(2, requires_grad=True)
    with mg.no_grad():
        assert not (x * 2).requires_grad
        with mg.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @mg.no_grad()
    def double(x: Tensor) -> Tensor:
        return x * 2

    @mg.enable_grad()
    def triple(x: Tensor) -> Tensor:
        return x * 3

    assert not double(x).requires_grad and not double(x).requires_grad
    with mg.no_grad():
        assert triple(x).requires_grad


def test_switches_are_reset_by_an_exception() -> None:
    x = mg.ones(2, requires_grad=True)
    with pytest.raises(KeyError), mg.no_grad(), mg.textbook():
        raise KeyError
    y = F.linear(mg.ones((1, 2)), mg.ones((2, 2), requires_grad=True))
    assert (x * 2).requires_grad
    assert y.node is not None and y.node.xp is None, "kernels run again"


def test_textbook_runs_no_kernel() -> None:
    x, w = mg.ones((1, 2)), mg.ones((2, 2), requires_grad=True)

    @mg.textbook()
    def by_the_book() -> Tensor:
        return F.linear(x, w)

    kernel, textbook = F.linear(x, w), by_the_book()
    assert kernel.node is not None and kernel.node.xp is None
    assert textbook.node is not None and textbook.node.xp is np
    with mg.textbook():
        assert_close(grad(kernel.sum(), w).numpy(), np.ones((2, 2)))
    assert_close(grad(textbook.sum(), w).numpy(), np.ones((2, 2)))


def test_switches_belong_to_a_thread() -> None:
    x, seen = mg.ones(2, requires_grad=True), []
    with mg.no_grad(), mg.textbook():
        thread = threading.Thread(target=lambda: seen.append((x * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_differentiate_one_model_at_once(rng: np.random.Generator) -> None:
    block = Block(mg.Generator(1))
    step = value_and_grad(block, block.parameters())
    data = [(rng.integers(0, 5, (4, 6)), rng.integers(0, 5, (4, 6))) for _ in range(8)]
    expected = [step(*batch) for batch in data]
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        for _ in range(5):
            results[number] = step(*data[number])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, (value, gradients) in enumerate(expected):
        assert results[i][0].item() == value.item()
        for ours, theirs in zip(results[i][1], gradients, strict=True):
            assert np.array_equal(ours.numpy(), theirs.numpy())


# Changes in place between forward and backward


def test_a_leaf_that_changed_after_it_was_read() -> None:
    (x,) = float64([1.0, 2.0])
    y = (x * x).sum()
    x.assign([5.0, 5.0])
    with pytest.raises(InPlaceError, match=r"backward of 'multiply': its input 0 of shape \(2,\)"):
        y.backward()
    assert x.grad is None
    assert grad((x * x).sum(), x).tolist() == [10, 10], "a fresh forward pass is all right"


def test_a_constant_that_changed_after_it_was_read() -> None:
    (x,) = float64([1.0, 2.0])
    mask = Tensor(np.array([1.0, 0.0]))
    y = (x * mask).sum()
    mask[1] = 1
    with pytest.raises(InPlaceError, match="changed in place after the forward pass"):
        y.backward()


def test_a_change_through_a_view_is_seen() -> None:
    (x,) = float64([1.0, 2.0])
    base = Tensor(np.zeros((2, 2)))
    for change in (
        lambda: base[0].__setitem__(0, 1.0),
        lambda: base.T.__setitem__((1, 0), 1.0),
        lambda: base.reshape(4).__setitem__(2, 1.0),
        lambda: base.detach().__setitem__(0, 1.0),
        lambda: Tensor(base).__setitem__(0, 1.0),
        lambda: x.detach().__setitem__(0, 7.0),
    ):
        y = (x * base[0]).sum() + (base * base[1:]).sum() * x[0]
        change()
        with pytest.raises(InPlaceError):
            y.backward()


def test_a_copy_may_change() -> None:
    """Indexing with an array copies, so the source may be overwritten with the next batch."""
    (x,) = float64([1.0, 2.0])
    buffer = Tensor(np.array([3.0, 4.0, 5.0]))
    y = (x * buffer[[0, 2]]).sum()
    buffer[:] = 0
    assert grad(y, x).tolist() == [3, 5]


def test_an_optimizer_step_between_forward_and_backward_is_seen() -> None:
    layer = nn.Linear(2, 2, rng=mg.Generator(0))
    optimizer = mg.optim.SGD(layer.parameters(), lr=0.1)
    first, second = layer(mg.ones((1, 2))).sum(), layer(mg.ones((1, 2))).sum()
    first.backward()
    optimizer.step()
    with pytest.raises(InPlaceError, match="linear"):
        second.backward()


def test_add_gradients_adds_to_arrays_and_leaves_grad_alone(rng):
    x = mg.Tensor(rng.standard_normal((3, 4)), requires_grad=True)
    y = mg.Tensor(rng.standard_normal(4), requires_grad=True)
    unused = mg.Tensor(np.ones(2), requires_grad=True)
    places = [np.ones((3, 4)), np.ones(4), np.ones(2)]
    add_gradients((x * y * y).sum(), [x, y, unused], places)
    np.testing.assert_allclose(places[0], 1 + np.broadcast_to(y.numpy() ** 2, (3, 4)))
    np.testing.assert_allclose(places[1], 1 + 2 * y.numpy() * x.numpy().sum(0))
    np.testing.assert_array_equal(places[2], np.ones(2))
    assert x.grad is None
    assert y.grad is None


def test_add_gradients_frees_the_graph_and_leaves_other_leaves_out(rng):
    x = mg.Tensor(rng.standard_normal(3), requires_grad=True)
    y = mg.Tensor(rng.standard_normal(3), requires_grad=True)
    loss, place = (x * y).sum(), np.zeros(3)
    add_gradients(loss, [x], [place])
    np.testing.assert_array_equal(place, y.numpy())
    assert y.grad is None
    with pytest.raises(mg.GraphFreedError):
        add_gradients(loss, [x], [place])
