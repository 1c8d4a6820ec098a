"""Compares CUDA kernels, run through the CPU shim, with the textbook in double precision."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
import pytest

from minigrad.kernels.cuda import KERNELS, gemm
from minigrad.ops import TEXTBOOK
from tests.gpu.shim.build import FORWARD, REVERSE

# Relative to the largest element of a result: rounding errors of sums of some thousand terms.
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}
# For operands of 10 and of 7 bits, and sums of some hundred of their products.
ROUNDED_TOLERANCE = {"fp32": None, "tf32": 2e-3, "bf16": 1e-2}
PRECISIONS = (np.float32, np.float64)
# The inputs whose gradients a kernel writes to given output buffers.
WEIGHTS = {
    "linear": (1, 2),
    "linear_norm": (1, 2, 4, 5),
    "embedding": (0,),
    "embedding_with_positions": (0, 1),
    "layer_norm": (1, 2),
    "add_layer_norm": (2, 3),
}
NORESERVE = 0x4000  # a flag of mmap on Linux; Python 3.13 has a name for it
SCHEDULES = (FORWARD, REVERSE, 2, 3)  # orders of threads; the last two are random


def assert_close(got: Any, wanted: np.ndarray, what: str, tolerance: float | None = None) -> None:
    """`got` equals `wanted` within `tolerance` times its largest value, or times 0.01 if larger."""
    got = got.get()
    assert got.shape == wanted.shape, f"{what}: shape {got.shape} instead of {wanted.shape}"
    if not got.size:
        return
    error = np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-2)
    limit = TOLERANCE[got.dtype] if tolerance is None else tolerance
    assert error <= limit, f"{what}: off by {error:.1e} of the largest value"


def rounded(x: np.ndarray, factors: str, capability: str) -> np.ndarray:
    """`x` rounded to TF32 or bfloat16, as tensor cores of a compute capability get it.

    Ties go to the even neighbour. For TF32 this holds from compute capability 9.0 on
    (`cvt.rn.tf32`); before, ties go away from zero.
    """
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    if factors == "tf32":
        bits = bits + (0xFFF + (bits >> 13 & 1) if int(capability) >= 90 else 0x1000) & 0xFFFFE000
    if factors == "bf16":
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def untouched(shape: tuple[int, ...]) -> np.ndarray:
    """Any number of float32 zeros, which use no memory until they are written."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
    try:
        memory = mmap.mmap(-1, math.prod(shape) * 4, flags=flags)
    except (OSError, ValueError) as error:
        pytest.skip(f"no address space for it: {error}")
    return np.frombuffer(memory, np.float32).reshape(shape)


def check_twin(
    gpu: Any,
    name: str,
    arrays: list[np.ndarray | None],
    dtype: Any,
    schedule: int = FORWARD,
    needs: tuple[bool, ...] | None = None,
    tolerance: float | None = None,
    **statics: Any,
) -> None:
    """Forward and backward of a kernel equal the textbook's, and do not change the inputs."""
    arrays = [a.astype(dtype) if a is not None and a.dtype.kind == "f" else a for a in arrays]
    needs = needs or tuple(a is not None and a.dtype.kind == "f" for a in arrays)
    gpu.engine.schedule = schedule
    kernel, textbook = KERNELS[TEXTBOOK[name]], TEXTBOOK[name]
    exact = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in arrays]
    wanted, wanted_saved = textbook.forward(np, *exact, **statics)

    inputs = [None if a is None else gpu.asarray(a) for a in arrays]
    y, saved = kernel.forward(*inputs, **statics)
    assert y.dtype == dtype
    assert_close(y, np.asarray(wanted), f"{name} forward", tolerance)

    dy = np.random.default_rng(1).standard_normal(np.shape(wanted)).astype(dtype)
    upstream = gpu.asarray(dy)
    got = kernel.backward(upstream, saved, needs, **statics)
    gradients = textbook.backward(np, dy.astype(np.float64), wanted_saved, needs, **statics)
    assert len(got) == len(arrays)
    for i, (ours, theirs) in enumerate(zip(got, gradients, strict=True)):
        if needs[i]:
            assert ours.dtype == dtype
            assert_close(ours, theirs, f"{name} gradient {i}", tolerance)
        else:
            assert ours is None
    if hasattr(kernel, "backward_into"):
        check_places(gpu, name, inputs, upstream, needs, got, **statics)
    for given, array in zip([*inputs, upstream], [*arrays, dy], strict=True):
        if given is not None:
            np.testing.assert_array_equal(given.get(), array)


def check_places(
    gpu: Any,
    name: str,
    inputs: list[Any],
    upstream: Any,
    needs: tuple[bool, ...],
    gradients: tuple[Any, ...],
    **statics: Any,
) -> None:
    """`backward_into` is bitwise identical to `backward`, and writes to the output buffers.

    The buffers are parts of one array that begin at odd elements, as in an array of all gradients.
    For these cuBLASLt uses other algorithms than for new arrays, so its results may differ by
    rounding.
    """
    _, saved = KERNELS[TEXTBOOK[name]].forward(*inputs, **statics)
    wanted = [x if need else None for x, need in zip(inputs, needs, strict=True)]
    filler = np.full(sum(x.size + 2 for x in wanted if x is not None), 7.0, upstream.dtype)
    flat, start, places = gpu.asarray(filler), 1, []
    for x in wanted:
        places.append(None if x is None else flat[start : start + x.size].reshape(x.shape))
        start += 0 if x is None else x.size + 2
    got = KERNELS[TEXTBOOK[name]].backward_into(upstream, saved, needs, tuple(places), **statics)
    for i, (ours, gradient, place) in enumerate(zip(got, gradients, places, strict=True)):
        if gradient is None:
            assert ours is None
            continue
        if name.startswith("linear") and gemm.uses_cublaslt(gemm.SMALL + 1):
            assert_close(ours, gradient.get(), f"{name} gradient {i} in its place")
        else:
            np.testing.assert_array_equal(ours.get(), gradient.get())
        assert ours is place or i not in WEIGHTS[name]
        if ours is place:
            place[...] = 7
    np.testing.assert_array_equal(flat.get(), filler)
