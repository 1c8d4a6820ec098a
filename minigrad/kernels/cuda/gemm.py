"""Matmuls, by cuBLASLt (cublaslt.py) or by our own kernels (gemm.cu).

`library` and `set_library` choose between them; results differ by rounding only. By default,
"auto", our own kernels compute small matmuls: they need fewer launches, because they also cast
operands and compute other parts of a layer's backward pass. cuBLASLt computes large matmuls, for
which it is faster.

Our own kernels compute float64, and float32 under `precision("fp32")`, by fused multiply-adds.
Under "tf32" and "bf16" tensor cores round the operands and sum in float32 (see
`minigrad.precision`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda import cublaslt
from minigrad.kernels.cuda.bf16 import from_bf16, to_bf16
from minigrad.kernels.cuda.columns import sum_parts
from minigrad.kernels.cuda.compile import Source, blocks, dense, one_dtype, real_of
from minigrad.kernels.cuda.tiles import THREADS, TILE, parts_of_sum
from minigrad.precision import precision, precision_on_gpu, set_precision
from minigrad.settings import Setting
from minigrad.state import STATE, setting

SOURCE = Source("gemm", "gemm_fma<{real}>", "gemm_tf32", "gemm_bf16")
LIBRARIES = ("auto", "cublaslt", "own")
SMALL = 2**27  # multiply-adds, some 10 µs by our own kernels; estimated, not measured


class Default:
    """The settings outside of `with` blocks."""

    library = "auto"


def library(name: str) -> Setting:
    """Context manager: what computes matmuls in this thread, "auto", "cublaslt" or "own"."""
    return setting(library=_known(name))


def set_library(name: str) -> None:
    """Set what computes matmuls in all threads, outside of blocks of `library`."""
    Default.library = _known(name)


def _known(name: str) -> str:
    if name not in LIBRARIES:
        raise ValueError(f"there is no library {name!r}: choose from {', '.join(LIBRARIES)}")
    return name


def uses_cublaslt(multiply_adds: int) -> bool:
    """Whether cuBLASLt computes a matmul of this size."""
    name = STATE.library or Default.library
    if name == "own" or (name == "auto" and multiply_adds <= SMALL):
        return False
    return cublaslt.library() is not None


def factors_of(array: Any) -> str | None:
    """What the operands of a matmul with `array` are rounded to; None for float64.

    Raises:
        PrecisionError: a precision is asked for that the array's device does not have.
    """
    return precision_on_gpu(array.device.id) if array.dtype == np.float32 else None


def prepared(factors: str | None, *arrays: Any) -> tuple[Any, ...]:
    """Arrays as cuBLASLt accepts them: rounded to bfloat16 for "bf16", otherwise unchanged.

    An array that is an operand of several matmuls is prepared once.
    """
    return to_bf16(*arrays) if factors == "bf16" else arrays


def multiply(
    a: Any,
    b: Any,
    bias: Any = None,
    relu: bool = False,
    *,
    factors: str | None = None,
    into: Any = None,
    plus: Any = None,
) -> Any:
    """a @ b + plus + bias, (M, K) @ (K, N) -> (M, N), then max(·, 0) if `relu`.

    Transposed operands cost no copy.

    Args:
        a, b: of one dtype, or both prepared.
        bias: (N,) or None.
        factors: "fp32", "tf32" or "bf16" for float32; by default the current precision.
        into: the output buffer (M, N), C-contiguous, of the result's dtype, or None for a new one.
        plus: another such array, which is only read, or None. Only without `relu`.

    Raises:
        ValueError: the shapes do not fit.
        PrecisionError: a precision is asked for that the device does not have.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"no matrix product of shapes {a.shape} and {b.shape}")
    if bias is not None and bias.shape != b.shape[1:]:
        raise ValueError(f"a bias of shape {bias.shape} for a product of {b.shape[1]} columns")
    dtype = one_dtype("gemm", a, b)
    if dtype == np.float32:
        factors = factors or factors_of(a)
    with_cublaslt = a.dtype == np.uint16 or uses_cublaslt(a.size * b.shape[1])
    if with_cublaslt and dtype == np.float32:
        a, b = prepared(factors, a, b)
    real = np.dtype(np.float32) if a.dtype == np.uint16 else dtype
    out = cupy().empty((a.shape[0], b.shape[1]), real) if into is None else into
    one_dtype("gemm", out, bias, plus)
    a, b, bias = _in_some_order(a), _in_some_order(b), dense(bias)
    if (
        with_cublaslt
        and out.size * a.size > 0  # cuBLASLt takes no empty matrices
        and cublaslt.multiply(a, b, bias, relu, factors == "tf32", out, plus)
    ):
        return out
    if a.dtype == np.uint16:
        a, b, factors = from_bf16(a), from_bf16(b), "bf16"
    _own(a, b, bias, relu, factors, out)
    if plus is not None:
        out += plus
    return out


def _own(a: Any, b: Any, bias: Any, relu: bool, factors: str | None, out: Any) -> None:
    """Multiply by our own kernels.

    Where the result has few elements and K is long (weight gradients), K is split into parts.
    Different blocks sum the parts; then the partial sums are added.
    """
    (m, k), n, dtype = a.shape, b.shape[1], out.dtype
    kernel = f"gemm_fma<{real_of(dtype)}>"
    if dtype == np.float32 and factors != "fp32":
        kernel = f"gemm_{factors}"
    grid = (blocks(m, TILE), blocks(n, TILE))
    parts, part = parts_of_sum(k, grid[0] * grid[1])
    if bias is not None or relu:  # these come after the sum
        parts, part = 1, blocks(k, 32) * 32
    target = out if parts == 1 else cupy().empty((parts, m * n), dtype)
    strides = [s // array.itemsize for array in (a, b) for s in array.strides]
    SOURCE.launch(
        kernel,
        (*grid, parts),
        (THREADS,),
        *(_memory(a), _memory(b), bias, target, m, n, k, *strides, part, relu),
        dtype=dtype,
    )
    if parts > 1:
        sum_parts(target, out.reshape(m * n))


def _in_some_order(array: Any) -> Any:
    """`array` if it is C-contiguous or the transpose of such an array, otherwise a copy."""
    return array if array.T.flags.c_contiguous else dense(array)


def _memory(array: Any) -> Any:
    """The C-contiguous array over the same memory."""
    return array if array.flags.c_contiguous else array.T


__all__ = ["factors_of", "library", "multiply", "precision", "set_library", "set_precision"]
