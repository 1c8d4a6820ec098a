"""Compares every op's first and second derivatives with central differences."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, grad, gradcheck
from minigrad.ops import TEXTBOOK
from tests.minigrad.compare import assert_close
from tests.minigrad.kernels.tables import kernels_of
from tests.minigrad.ops.cases import CASES, Case

CONTEXTS: dict[str, Callable[[], Any]] = {
    "textbook": mg.textbook,
    "kernels": contextlib.nullcontext,
}
# Without a kernel both contexts run the same functions, so one suffices.
RUNS = [
    pytest.param(case, context, id=f"{case.op}: {case.label} ({name})")
    for case in CASES
    for name, context in CONTEXTS.items()
    if name == "textbook" or case.op in kernels_of("cpu")
]
# These tests are skipped for functions made of others, whose ops have been tested.
OPS_FIRST = [
    pytest.param(*run.values, id=run.id, marks=() if case.public == case.op else pytest.mark.slow)
    for run in RUNS
    for case in run.values[:1]
]
WITH_KERNEL = [
    pytest.param(case, id=f"{case.op}: {case.label}")
    for case in CASES
    if case.op in kernels_of("cpu")
]


def every_other(a: np.ndarray) -> np.ndarray:
    """The same values as a view; between them, along the last axis, lie NaN."""
    wide = np.full((*a.shape, 2), np.nan)
    wide[..., 0] = a
    return wide[..., 0]


def first_axis_fastest(a: np.ndarray) -> np.ndarray:
    """The same values in Fortran order."""
    return np.array(a, order="F")


def test_every_op_of_the_textbook_has_a_case() -> None:
    assert {case.op for case in CASES} == set(TEXTBOOK)


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.op}: {c.label}") for c in CASES])
def test_a_case_runs_the_op_that_it_is_about(case: Case) -> None:
    nodes, found = [case.function(*case.tensors()).node], set()
    while nodes:
        node = nodes.pop()
        assert node is not None
        found.add(node.op.name)
        nodes += [x.node for x in node.inputs if x is not None and x.node is not None]
    assert case.op in found


@pytest.mark.parametrize(("case", "context"), RUNS)
def test_gradient(case: Case, context: Callable[[], Any]) -> None:
    with context():
        gradcheck(case.function, case.tensors())


@pytest.mark.parametrize(
    "layout", [every_other, pytest.param(first_axis_fastest, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("case", "context"), OPS_FIRST)
def test_gradient_of_inputs_that_are_not_contiguous(
    case: Case, context: Callable[[], Any], layout: Callable[[np.ndarray], np.ndarray]
) -> None:
    with context():
        y = case.function(*case.tensors())
        other_y = case.function(*case.tensors(layout))
        assert_close(other_y.numpy(), y.numpy(), 1e-13)
        upstream = Tensor(np.random.default_rng(2).standard_normal(y.shape).T.copy().T)
        for array, other in zip(
            _gradients(case, np.array, upstream), _gradients(case, layout, upstream), strict=True
        ):
            assert_close(other, array, 1e-12)


def _gradients(case: Case, layout: Callable[..., np.ndarray], upstream: Tensor) -> list[np.ndarray]:
    inputs = case.tensors(layout)
    wanted = [x for x in inputs if x.requires_grad]
    return [g.numpy() for g in grad(case.function(*inputs), wanted, upstream)]


SEVERAL = [run for run in RUNS if sum(a.dtype.kind == "f" for a in run.values[0].arrays) > 1]


@pytest.mark.parametrize(("case", "context"), SEVERAL)
def test_each_gradient_is_the_same_where_no_other_is_wanted(
    case: Case, context: Callable[[], Any]
) -> None:
    """Gradients that are not wanted are not computed, and the others do not depend on that."""
    floats = [i for i, array in enumerate(case.arrays) if array.dtype.kind == "f"]
    rng = np.random.default_rng(5)
    with context():
        y = case.function(*case.tensors())
        upstream = Tensor(rng.standard_normal(y.shape))
        together = dict(zip(floats, _gradients(case, np.array, upstream), strict=True))
        for i in floats:
            inputs = [Tensor(array.copy()) for array in case.arrays]
            inputs[i].requires_grad = True
            (alone,) = grad(case.function(*inputs), [inputs[i]], upstream)
            assert_close(alone.numpy(), together[i], 1e-12)


@pytest.mark.parametrize(("case", "context"), OPS_FIRST)
def test_gradient_of_an_op_that_is_used_twice(case: Case, context: Callable[[], Any]) -> None:
    def twice(*inputs: Tensor) -> Tensor:
        return case.function(*inputs) * 1.5 - case.function(*inputs)

    with context():
        gradcheck(twice, case.tensors(), full_limit=4, directions=2)


@pytest.mark.parametrize(("case", "context"), RUNS)
def test_second_derivative(case: Case, context: Callable[[], Any]) -> None:
    """The gradient itself is differentiated, by the inputs and by the upstream gradient."""
    inputs = case.tensors()
    y = case.function(*inputs)
    upstream = Tensor(np.random.default_rng(3).standard_normal(y.shape), requires_grad=True)

    def gradient(upstream: Tensor, *inputs: Tensor) -> list[Tensor]:
        wanted = [x for x in inputs if x.requires_grad]
        return list(grad(case.function(*inputs), wanted, upstream, create_graph=True))

    with context():
        gradcheck(gradient, [upstream, *inputs], full_limit=10, directions=2)


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.op}: {c.label}") for c in CASES])
def test_float32_gives_float32_and_what_float64_gives(case: Case) -> None:
    found = []
    for dtype in (np.float32, np.float64):
        inputs = [
            Tensor(a.astype(dtype), requires_grad=True) if a.dtype.kind == "f" else Tensor(a)
            for a in case.arrays
        ]
        y = case.function(*inputs)
        upstream = Tensor(np.random.default_rng(6).standard_normal(y.shape).astype(y.dtype))
        gradients = grad(y, [x for x in inputs if x.requires_grad], upstream)
        found.append([y.numpy(), *[g.numpy() for g in gradients]])
        assert all(g.dtype == dtype for g in gradients)
    assert found[0][0].dtype == np.float32 or case.op == "astype" or "binary" in case.label
    for narrow, wide in zip(*found, strict=True):
        assert_close(narrow, wide, 2e-4)


@pytest.mark.parametrize("case", WITH_KERNEL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernel_is_the_textbook(case: Case, dtype: Any) -> None:
    """Value and gradients are equal, up to a few units in the last place of the largest element."""

    def run() -> list[np.ndarray]:
        inputs = [
            Tensor(a.astype(dtype), requires_grad=True) if a.dtype.kind == "f" else Tensor(a)
            for a in case.arrays
        ]
        y = case.function(*inputs)
        upstream = np.random.default_rng(4).standard_normal(y.shape).astype(dtype)
        gradients = grad(y, [x for x in inputs if x.requires_grad], Tensor(upstream))
        return [y.numpy(), *[g.numpy() for g in gradients]]

    kernel = run()
    with mg.textbook():
        textbook = run()
    for ours, reference in zip(kernel, textbook, strict=True):
        assert ours.dtype == reference.dtype == dtype
        scale = np.abs(reference).max(initial=1)
        assert np.abs(ours - reference).max(initial=0) <= 40 * np.finfo(dtype).eps * scale
