"""float16 on the CPU: every op of the registry computes in float32 and rounds its result once."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, grad, nn
from minigrad.autograd import add_gradients, write_gradients
from minigrad.nn import functional as F
from minigrad.ops import TEXTBOOK
from minigrad.optim import SGD, Adam, AdamW, FlatParameters, Muon, RMSprop, clip_grad_norm_
from minigrad.state import first_order
from tests.minigrad.kernels.tables import kernels_of
from tests.minigrad.ops.cases import CASES, Case

EPS = float(np.finfo(np.float16).eps)
CONTEXTS: dict[str, Callable[[], Any]] = {
    "textbook": mg.textbook,
    "kernels": contextlib.nullcontext,
}
# Kernels have a separate function for written gradients; pages have not.
RUNS = [
    pytest.param(
        *(case, context, how),
        id=f"{case.op}: {case.label} ({name}, {how})",
        marks=pytest.mark.slow
        if how == "graph" and (name == "kernels" or case.public != case.op)
        else (),
    )
    for case in CASES
    for name, context in CONTEXTS.items()
    for how in ("grad", "graph", "write")
    if (name == "textbook" and how != "write") or case.op in kernels_of("cpu")
]
# Cases with several ops, each of which rounds its result: about how many roundings.
ROUNDINGS = {"softplus": 12, "cross_entropy": 4, "einsum": 4, "matmul": 4}


def run(case: Case, dtype: Any, how: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Value and gradients of a case in `dtype`, for inputs that float16 represents exactly."""
    inputs = [
        Tensor(a.astype(np.float16).astype(dtype), requires_grad=True)
        if a.dtype.kind == "f"
        else Tensor(a)
        for a in case.arrays
    ]
    y = case.function(*inputs)
    upstream = np.random.default_rng(5).standard_normal(y.shape).astype(np.float16)
    wanted = [x for x in inputs if x.requires_grad]
    if how != "write":
        gradients = grad(y, wanted, Tensor(upstream.astype(y.dtype)), create_graph=how == "graph")
        return y.numpy(), [g.numpy() for g in gradients]
    places = [np.full(x.shape, np.nan, x.dtype) for x in wanted]
    total = mg.sum(y.astype("float64") * Tensor(upstream.astype(np.float64)))
    write_gradients(total, wanted, places)
    return y.numpy(), places


@pytest.mark.parametrize(("case", "context", "how"), RUNS)
def test_every_op_in_float16_against_float64(
    case: Case, context: Callable[[], Any], how: str
) -> None:
    with context():
        y, gradients = run(case, np.float16, how)
        true_y, true_gradients = run(case, np.float64, how)
    wide = case.label.startswith("binary cross-entropy") or case.op == "astype"
    assert y.dtype == np.float16 or wide, "a case with an array of float64 in it"
    bound = ROUNDINGS.get(case.op, 2) * EPS
    for got, true in ((y, true_y), *zip(gradients, true_gradients, strict=True)):
        assert got.shape == true.shape
        error = np.abs(got.astype(np.float64) - true).max(initial=0)
        assert error <= bound * np.abs(true).max(initial=1)
    assert all(g.dtype == np.float16 for g in gradients)


@pytest.mark.parametrize(
    "name", sorted({name for name, op in TEXTBOOK.items() if op.exact} - {"astype", "to_device"})
)
def test_ops_that_only_move_numbers_are_exact(name: str) -> None:
    for case in (case for case in CASES if case.op == case.public == name):
        y, _ = run(case, np.float16, "grad")
        true, _ = run(case, np.float64, "grad")
        np.testing.assert_array_equal(y.astype(np.float64), true)


HALF = np.float16


def leaf(values: Any) -> Tensor:
    return Tensor(np.asarray(values, HALF), requires_grad=True)


@pytest.mark.parametrize("context", [mg.textbook, contextlib.nullcontext])
def test_what_was_wrong(context: Callable[[], Any]) -> None:
    with context():
        z = leaf([[20.0, 0.0]])
        loss = F.cross_entropy(z, np.array([1]))
        assert loss.dtype == HALF
        assert loss.item() == 20
        assert grad(loss, z).tolist() == [[1, -1]]
        x = leaf(300 + np.arange(8.0))
        y = F.layer_norm(x, leaf(np.ones(8)), leaf(np.zeros(8)))
        true = (np.arange(8) - 3.5) / np.sqrt(5.25 + 1e-5)
        np.testing.assert_allclose(y.numpy(), true, rtol=EPS)
        y = F.rms_norm(leaf(np.full(8, 300.0)), None)
        assert y.tolist() == [1] * 8
        many = leaf(np.ones(70_000))
        assert mg.mean(many).item() == 1
        np.testing.assert_allclose(grad(mg.mean(many), many).numpy(), 1 / 70_000, rtol=3e-3)
        assert mg.erf(leaf([0.5])).dtype == mg.gelu(leaf([0.5])).dtype == HALF
        assert mg.var(leaf([-300.0, 300.0, 0.0, 0.0])).item() == HALF(45_000)
        assert mg.logsumexp(leaf([12.0, 12.0])).item() == pytest.approx(12.6931, rel=EPS)
        assert mg.softmax(leaf(np.zeros(70_000))).numpy().max() == HALF(1 / 70_000)
        scores = leaf(np.full((1, 4, 3 * 8), 30.0))
        assert (F.multi_head_attention(scores, num_heads=1).numpy() == 30).all()
        product = leaf(np.full((1, 4), 200.0)) @ leaf([[200.0], [200.0], [-200.0], [-200.0]])
        assert product.tolist() == [[0]], "200² is beyond float16"
        quotient = leaf([300.0]) / leaf([300.0])
        assert quotient.item() == 1


def test_broadcast_and_repeated_gradients_are_added_in_float32() -> None:
    x = leaf([[1.0]])
    for y in (mg.broadcast_to(x, (5000, 2)), x + Tensor(np.zeros((5000, 2), HALF))):
        assert grad(y, x, Tensor(np.ones(y.shape, HALF))).tolist() == [[10_000]]
    taken = x[0][np.zeros(5001, int)]
    assert grad(taken, x, Tensor(np.ones(5001, HALF))).tolist() == [[5000]], "the nearest is 5000"


def test_mixed_inputs_have_the_wider_dtype_and_gradients_their_own() -> None:
    x, w = leaf([[300.0, 301.0]]), Tensor(np.ones((1, 2), np.float32), requires_grad=True)
    y = F.linear(x, w)
    assert y.dtype == np.float32
    assert y.item() == 601
    dx, dw = grad(y, [x, w], Tensor(np.ones((1, 1), np.float32)))
    assert dx.dtype == HALF
    assert dw.dtype == np.float32
    y = F.layer_norm(x, w[0], None)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.numpy(), [[-1, 1]], rtol=1e-4)


def test_second_derivatives_too() -> None:
    x = leaf([300.0, 310.0, 350.0])
    y = F.layer_norm(x, None, None)
    (dx,) = (grad(y, x, leaf([1.0, 2.0, -1.0]), create_graph=True),)
    second = grad(dx, x, Tensor(np.array([1.0, -1.0, 1.0], HALF)))
    exact = Tensor(x.numpy().astype(np.float64), requires_grad=True)
    y = F.layer_norm(exact, None, None)
    dx = grad(y, exact, Tensor(np.array([1.0, 2.0, -1.0])), create_graph=True)
    true = grad(dx, exact, Tensor(np.array([1.0, -1.0, 1.0])))
    assert second.dtype == HALF
    np.testing.assert_allclose(second.numpy(), true.numpy(), rtol=0.02, atol=1e-6)


def test_first_order_and_added_gradients() -> None:
    w = leaf(np.ones((3, 4)))
    with first_order():
        loss = F.linear(leaf(np.full((70, 4), 30.0)), w).sum()
    place = np.zeros((3, 4), HALF)
    add_gradients(loss, [w], [place])
    assert (place == 2100).all()


@pytest.mark.parametrize("flat", [False, True])
def test_clipping(flat: bool) -> None:
    for values, norm in (([300.0, 400.0], 500.0), ([3e-4, 4e-4], 5e-4), ([6e4] * 100, 6e5)):
        p = nn.Parameter(np.zeros(len(values), HALF))
        if flat:
            FlatParameters([p]).zero_grad()
            p.grad.data[...] = values  # type: ignore[union-attr]
        else:
            p.grad = Tensor(np.array(values, HALF))
        found = clip_grad_norm_([p], 1e-2)
        assert found == pytest.approx(norm, rel=1e-3)
        assert p.grad is not None
        assert p.grad.dtype == HALF
        scale = min(1, 1e-2 / norm)
        np.testing.assert_allclose(p.grad.numpy(), np.array(values) * scale, rtol=2e-3)


def test_clipping_of_gradients_whose_squares_overflow() -> None:
    p = nn.Parameter(np.zeros(2, np.float32))
    p.grad = Tensor(np.array([3e25, 4e25], np.float32))
    with np.errstate(over="ignore"):
        assert clip_grad_norm_(p, 1.0) == pytest.approx(5e25)
    assert p.grad.tolist() == pytest.approx([0.6, 0.8])


OPTIMIZERS: dict[str, Callable[[list[Any]], Any]] = {
    "AdamW": lambda p: AdamW(p, lr=1e-2, weight_decay=0.1),
    "SGD": lambda p: SGD(p, lr=1e-2, momentum=0.9, weight_decay=0.1, nesterov=True),
    "Muon": lambda p: Muon(p, lr=1e-2, orthogonal=True),
    "Adam": lambda p: Adam(p, lr=1e-2, weight_decay=0.1, amsgrad=True),
    "RMSprop": lambda p: RMSprop(p, lr=1e-2, weight_decay=0.1, momentum=0.5),
}


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e3])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_of_float16_parameters(name: str, flat: bool, size: float) -> None:
    """Each step equals the one in float64 from the same float16 parameters, rounded once."""
    rng = np.random.default_rng(6)
    start = rng.standard_normal((4, 3)).astype(HALF)
    half, wide = nn.Parameter(start.copy()), nn.Parameter(start.astype(np.float64))
    ours, true = OPTIMIZERS[name]([half]), OPTIMIZERS[name]([wide])
    if flat:
        ours.flatten().zero_grad()
    for _ in range(5):
        gradient = (size * rng.standard_normal((4, 3))).astype(HALF)
        if half.grad is None:
            half.grad = Tensor(gradient)
        half.grad.data[...] = gradient
        wide.grad = Tensor(gradient.astype(np.float64))
        ours.step()
        true.step()
        assert half.dtype == HALF
        step = np.abs(wide.numpy() - half.numpy()).max()
        assert step <= 1.01 * EPS * np.abs(wide.numpy()).max()
        wide.data[...] = half.numpy()
    for entry in ours.state_dict()["state"].values():
        averages = [v for v in entry.values() if isinstance(v, np.ndarray)]
        assert all(v.dtype == np.float32 for v in averages)
    again = OPTIMIZERS[name]([nn.Parameter(half.numpy().copy())])
    again.load_state_dict(ours.state_dict())
    for a, b in zip(*[list(o.state.values()) for o in (again, ours)], strict=True):
        for key, value in b.items():
            np.testing.assert_array_equal(a[key], value)
