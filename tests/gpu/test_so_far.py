"""Kernels that add their gradient to the one from a residual connection."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.kernels.cuda import KERNELS, gemm
from minigrad.nn import functional as F
from minigrad.ops import TEXTBOOK
from minigrad.precision import PRECISIONS as FACTORS
from tests.gpu.twins import PRECISIONS, ROUNDED_TOLERANCE, SCHEDULES, assert_close

# Kernels that, in the backward pass of x + f(x), add the other gradient to dx.
OPS: dict[str, Any] = {
    "linear": ((5, 7), (5,), {"activation": "relu"}),
    "layer_norm": ((7,), (7,), {"eps": 1e-5}),
}


def arrays_of(name: str, rng: np.random.Generator, rows: int) -> list[np.ndarray]:
    weight, bias, _ = OPS[name]
    return [rng.standard_normal(shape) for shape in ((rows, 7), weight, bias)]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rows", [1, 70, 700])
@pytest.mark.parametrize("name", OPS)
def test_the_sum_is_that_of_two_passes(
    gpu: Any, rng: np.random.Generator, name: str, rows: int, schedule: int, dtype: Any
) -> None:
    """Results are bitwise identical, and the other gradient is not changed."""
    gpu.engine.schedule = schedule
    arrays = [gpu.asarray(a.astype(dtype)) for a in arrays_of(name, rng, rows)]
    statics, kernel = OPS[name][2], KERNELS[TEXTBOOK[name]]
    y, saved = kernel.forward(*arrays, **statics)
    dy = gpu.asarray(rng.standard_normal(y.shape).astype(dtype))
    other = rng.standard_normal(arrays[0].shape).astype(dtype)
    so_far = gpu.asarray(other)
    needs = (True, True, True)
    alone = kernel.backward(dy, saved, needs, **statics)
    both = kernel.backward(dy, saved, needs, so_far=so_far, **statics)
    np.testing.assert_array_equal(both[0].get(), alone[0].get() + other)
    for ours, wanted in zip(both[1:], alone[1:], strict=True):
        np.testing.assert_array_equal(ours.get(), wanted.get())
    np.testing.assert_array_equal(so_far.get(), other)


@pytest.mark.parametrize("factors", FACTORS)
def test_on_tensor_cores_and_by_cublaslt(
    gpu: Any, rng: np.random.Generator, factors: str, each_library: str
) -> None:
    arrays = [gpu.asarray(a.astype("f4")) for a in arrays_of("linear", rng, 70)]
    with gemm.precision(factors):
        y, saved = KERNELS[TEXTBOOK["linear"]].forward(*arrays)
        dy = rng.standard_normal(y.shape).astype("f4")
        other = rng.standard_normal(arrays[0].shape).astype("f4")
        dx, _, _ = KERNELS[TEXTBOOK["linear"]].backward(
            gpu.asarray(dy), saved, (True, False, False), so_far=gpu.asarray(other)
        )
    exact = dy.astype(float) @ arrays[1].get() + other
    assert_close(dx, exact, "dx", ROUNDED_TOLERANCE[factors])


def block(x: Any, w: Any, gain: Any, norm_first: bool) -> Any:
    """A residual connection around the layer alone, or around norm and layer."""
    if norm_first:
        return x + F.linear(F.layer_norm(x, gain, None), w, None)
    return F.add_layer_norm(F.linear(x, w, None), x, gain, None)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_engine_hands_it_over(gpu: Any, rng: np.random.Generator, norm_first: bool) -> None:
    arrays = [rng.standard_normal(shape) for shape in ((9, 4), (4, 4), (4,))]
    found = []
    for device, textbook in (("gpu", False), ("gpu", True), ("cpu", True)):
        x, w, gain = (mg.Tensor(a, requires_grad=True, device=device) for a in arrays)
        gpu.counts.clear()
        with mg.textbook() if textbook else mg.enable_grad():
            y = x * 1.0
            for _ in range(3):
                y = block(y, w, gain, norm_first)
            (y * y).sum().backward()
        if not textbook:  # sums for the parameters and for y * y, but none for y
            assert gpu.counts["add"] == (3 if norm_first else 0) + 2 * 2 + 1
        found.append([t.grad.numpy() for t in (x, w, gain)])
    for ours, textbook_on_gpu, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(textbook_on_gpu, wanted, rtol=1e-9, atol=1e-9)


def test_a_tensor_that_is_read_in_many_ways(gpu: Any, rng: np.random.Generator) -> None:
    """By one kernel twice, and by a kernel that does not add; its gradient is also asked for."""
    a = rng.standard_normal((4, 4))
    found = []
    for device in ("cpu", "gpu"):
        x = mg.Tensor(a, requires_grad=True, device=device)
        h = x * 2.0
        y = F.linear(h, h, None) + F.gelu(h) + F.linear(h, x, None).sum()
        middle, leaf = mg.grad((y * y).sum(), [h, x])
        found.append((middle.numpy(), leaf.numpy()))
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-9)
