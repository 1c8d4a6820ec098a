"""Every op of the engine on device arrays, computed by the textbook and by the kernels."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, grad
from minigrad.device import Device
from minigrad.engine import apply
from minigrad.errors import DeviceError
from minigrad.ops import TEXTBOOK
from tests.gpu.shim.build import kernel_names
from tests.gpu.sources import SOURCES
from tests.minigrad.kernels.tables import kernels_of
from tests.minigrad.ops.cases import CASES, Case


def run(case: Case, device: str) -> list[np.ndarray]:
    """The value, and the gradients for a random upstream gradient."""
    inputs = [
        Tensor(a, requires_grad=a.dtype.kind == "f", device=device)
        for a in map(np.copy, case.arrays)
    ]
    y = case.function(*inputs)
    assert y.device == Device(device)
    upstream = np.asarray(np.random.default_rng(5).standard_normal(y.shape))
    wanted = [x for x in inputs if x.requires_grad]
    gradients = grad(y, wanted, Tensor(upstream, device=device), allow_unused=True)
    assert all(g is None or g.device == Device(device) for g in gradients)
    return [y.numpy(), *[g.numpy() for g in gradients if g is not None]]


# Cases whose function uses a mask on the host or its own device; they are tested below.
OWN_CONSTANTS = {"where", "to_device", "dropout"}
ALL_KERNELS = [name for s in SOURCES for name in kernel_names(s.text())]


@pytest.mark.stand_in
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=f"{c.op}: {c.label}") for c in CASES if c.op not in OWN_CONSTANTS],
)
def test_an_op_gives_the_same_on_the_device(gpu: Any, case: Case) -> None:
    with mg.textbook():
        for ours, reference in zip(run(case, "gpu"), run(case, "cpu"), strict=True):
            assert ours.dtype == reference.dtype
            # Bitwise identical except for sums, which a device adds in another order.
            np.testing.assert_allclose(ours, reference, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=f"{c.op}: {c.label}")
        for c in CASES
        if c.op in kernels_of("gpu") and c.op not in OWN_CONSTANTS
    ],
)
def test_a_kernel_gives_the_same_on_the_device(gpu: Any, case: Case) -> None:
    """The kernel is called through the engine: dispatch, broadcasting, accumulation."""
    ours = run(case, "gpu")
    assert any(gpu.counts[name] for name in ALL_KERNELS) or not ours[0].size
    with mg.textbook():
        reference = run(case, "cpu")
    for got, wanted in zip(ours, reference, strict=True):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        scale = np.abs(wanted).max(initial=1)
        assert np.abs(got - wanted).max(initial=0) <= 1e-13 * scale


def test_every_kernel_has_cases() -> None:
    assert set(kernels_of("gpu")) <= {case.op for case in CASES} <= set(TEXTBOOK)


def test_where_transfer_and_dropout(gpu: Any, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((2, 3, 4))
    mask = rng.random((3, 4)) < 0.5

    def run(device: str) -> list[np.ndarray]:
        a, b = (Tensor(v.copy(), requires_grad=True, device=device) for v in (x, y))
        keep = Tensor(mask, device=device)
        chosen = mg.where(keep, a, b)
        dropped = apply(TEXTBOOK["dropout"], chosen * a, keep, p=0.3)
        total = (dropped * b).to("cpu").sum()
        return [total.numpy(), *[g.numpy() for g in grad(total, [a, b])]]

    for ours, reference in zip(run("gpu"), run("cpu"), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-14)


def test_second_derivatives_on_the_device(gpu: Any, rng: np.random.Generator) -> None:
    data = rng.standard_normal((3, 4))

    def run(device: str) -> np.ndarray:
        x = Tensor(data.copy(), requires_grad=True, device=device)
        (first,) = grad((mg.softmax(x, -1) * mg.tanh(x)).sum(), [x], create_graph=True)
        (second,) = grad((first * first).sum(), [x])
        return second.numpy()

    np.testing.assert_allclose(run("gpu"), run("cpu"), rtol=1e-13, atol=1e-15)


def test_host_and_device_do_not_mix(gpu: Any) -> None:
    here, there = mg.ones((2,)), mg.ones((2,), device="gpu")
    with pytest.raises(DeviceError, match=r"add: the inputs live on different devices.*\.to\("):
        here + there
    np.testing.assert_array_equal((here.to("gpu") + there).numpy(), [2, 2])
