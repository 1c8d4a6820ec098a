"""Matrix products by our own kernels, where cuBLAS is not to be had: gemm.cu.

float64 is computed by fused multiply-adds. So is float32, unless `tf32` allows tensor cores of
compute capability 8.0 and above to round the factors to TF32 (10 bits of mantissa, as cuBLAS and
PyTorch do where they are allowed to); sums are in float32 all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.columns import sum_parts
from minigrad.kernels.cuda.compile import Source, blocks, dense, one_dtype, real_of

SOURCE = Source("gemm", "gemm_fma<{real}>", "gemm_tf32")
TILE = 64
ENOUGH_BLOCKS = 128  # for the larger GPUs; the same on all, so that results are
PART = 256  # the shortest part of K that is worth a block of its own


class State(threading.local):
    """What is allowed in this thread."""

    tf32 = False


STATE = State()


@contextmanager
def tf32(allowed: bool = True) -> Iterator[None]:
    """Context manager: products of float32 may use TF32 tensor cores."""
    before, STATE.tf32 = STATE.tf32, allowed
    try:
        yield
    finally:
        STATE.tf32 = before


def multiply(a: Any, b: Any, bias: Any = None, relu: bool = False) -> Any:
    """a @ b + bias, (M, K) @ (K, N) -> (M, N), then max(·, 0) if `relu`.

    Transposed operands cost no copy. Where the result has few elements and K is long
    (weight gradients), parts of K are summed by blocks of their own, and then their sums.

    Args:
        bias: (N,) or None.

    Raises:
        ValueError: the shapes do not fit.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"no matrix product of shapes {a.shape} and {b.shape}")
    dtype = one_dtype("gemm", a, b, bias)
    (m, k), n = a.shape, b.shape[1]
    grid = (blocks(n, TILE), blocks(m, TILE))
    parts = min(blocks(k, PART), max(1, ENOUGH_BLOCKS // max(1, grid[0] * grid[1])))
    if bias is not None or relu:
        parts = 1  # these come after the sum
    part = blocks(blocks(k, max(parts, 1)), 32) * 32
    parts = max(1, blocks(k, part)) if part else 1
    out = cupy().empty((parts, m, n), dtype)
    a, b = _in_some_order(a), _in_some_order(b)
    strides = [s // array.itemsize for array in (a, b) for s in array.strides]
    use_tf32 = dtype == np.float32 and STATE.tf32 and _has_tf32(a)
    SOURCE.launch(
        "gemm_tf32" if use_tf32 else f"gemm_fma<{real_of(dtype)}>",
        (*grid, parts),
        (128,) if use_tf32 else (256,),
        *(_memory(a), _memory(b), dense(bias), out, m, n, k, *strides, part, relu),
        dtype=dtype,
    )
    return out[0] if parts == 1 else sum_parts(out.reshape(1, parts, m * n)).reshape(m, n)


def _in_some_order(array: Any) -> Any:
    """`array` if it is C-contiguous or the transpose of such an array, otherwise a copy."""
    return array if array.T.flags.c_contiguous else dense(array)


def _memory(array: Any) -> Any:
    """The C-contiguous array over the same memory."""
    return array if array.flags.c_contiguous else array.T


def _has_tf32(array: Any) -> bool:
    return int(array.device.compute_capability) >= 80
