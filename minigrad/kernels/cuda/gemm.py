"""Matrix products by our own kernels: gemm.cu.

float64 is computed by fused multiply-adds. So is float32 under `precision("fp32")`; under "tf32"
and "bf16" tensor cores round the factors, and add in float32 all the same: `minigrad.precision`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.columns import sum_parts
from minigrad.kernels.cuda.compile import Source, blocks, dense, one_dtype, real_of
from minigrad.precision import precision, precision_on_gpu, set_precision

SOURCE = Source("gemm", "gemm_fma<{real}>", "gemm_tf32", "gemm_bf16")
TILE = 64
ENOUGH_BLOCKS = 128  # for the larger GPUs; the same on all, so that results are
PART = 256  # the shortest part of K that is worth a block of its own


def factors_of(array: Any) -> str | None:
    """What the factors of a product with `array` are rounded to now; None for float64.

    Raises:
        PrecisionError: a precision is asked for that the array's device does not have.
    """
    return precision_on_gpu(array.device.id) if array.dtype == np.float32 else None


def multiply(
    a: Any,
    b: Any,
    bias: Any = None,
    relu: bool = False,
    *,
    factors: str | None = None,
    into: Any = None,
) -> Any:
    """a @ b + bias, (M, K) @ (K, N) -> (M, N), then max(·, 0) if `relu`.

    Transposed operands cost no copy. Where the result has few elements and K is long
    (weight gradients), parts of K are summed by blocks of their own, and then their sums.

    Args:
        bias: (N,) or None.
        factors: "fp32", "tf32" or "bf16" for float32; left out, what is in force.
        into: (M, N), C-contiguous, of the same dtype, to write to; left out, a new array.

    Raises:
        ValueError: the shapes do not fit.
        PrecisionError: a precision is asked for that the device does not have.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"no matrix product of shapes {a.shape} and {b.shape}")
    if bias is not None and bias.shape != b.shape[1:]:
        raise ValueError(f"a bias of shape {bias.shape} for a product of {b.shape[1]} columns")
    dtype = one_dtype("gemm", a, b, bias)
    (m, k), n = a.shape, b.shape[1]
    grid = (blocks(m, TILE), blocks(n, TILE))
    parts = min(blocks(k, PART), max(1, ENOUGH_BLOCKS // max(1, grid[0] * grid[1])))
    if bias is not None or relu:
        parts = 1  # these come after the sum
    part = blocks(blocks(k, max(parts, 1)), 32) * 32
    parts = max(1, blocks(k, part)) if part else 1
    if parts > 1 or into is None:
        out = cupy().empty((parts, m, n) if parts > 1 else (m, n), dtype)
    else:
        out = into
    a, b = _in_some_order(a), _in_some_order(b)
    strides = [s // array.itemsize for array in (a, b) for s in array.strides]
    kernel = _kernel(dtype, factors or factors_of(a))
    SOURCE.launch(
        kernel,
        (*grid, parts),
        (256,) if kernel.startswith("gemm_fma") else (128,),
        *(_memory(a), _memory(b), dense(bias), out, m, n, k, *strides, part, relu),
        dtype=dtype,
    )
    if parts > 1:
        flat = None if into is None else into.reshape(m * n)
        out = sum_parts(out.reshape(parts, m * n), flat).reshape(m, n)
    return out if into is None else into


def _kernel(dtype: np.dtype, factors: str | None) -> str:
    if dtype == np.float32 and factors != "fp32":
        return f"gemm_{factors}"
    return f"gemm_fma<{real_of(dtype)}>"


def _in_some_order(array: Any) -> Any:
    """`array` if it is C-contiguous or the transpose of such an array, otherwise a copy."""
    return array if array.T.flags.c_contiguous else dense(array)


def _memory(array: Any) -> Any:
    """The C-contiguous array over the same memory."""
    return array if array.flags.c_contiguous else array.T


__all__ = ["factors_of", "multiply", "precision", "set_precision"]
