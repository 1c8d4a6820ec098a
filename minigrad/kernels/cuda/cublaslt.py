"""Matmuls by cuBLASLt, in a way that a CUDA graph can capture.

CuPy refuses to call cuBLAS while a stream captures. cuBLASLt can be captured if it is given a
workspace and an algorithm. So there is a *plan* for every kind of matmul (sizes, memory order,
precision, epilogue, alignment of the arrays). A plan holds the algorithm that cuBLASLt's heuristic
chose when the plan was made, outside of captures.

cuBLASLt's matrices are column-major. A C-contiguous c = a·b, (M, N), has the memory of the
column-major matrix cᵀ = bᵀ·aᵀ, (N, M), and the C-contiguous a that of the column-major aᵀ. So b is
passed first, and nothing is copied.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref, c_double, c_float, c_int, c_int32, c_uint32, c_uint64, c_void_p
from typing import Any, NamedTuple

import numpy as np

from minigrad.announce import announce
from minigrad.device import cupy
from minigrad.kernels.cuda import cublaslt_api as lt
from minigrad.kernels.cuda.cublaslt_api import Api, CublasError, HeuristicResult, Unavailable
from minigrad.kernels.cuda.scratch import workspace

MOST_ALIGNED = 256  # bytes; no algorithm needs a larger alignment
OPERANDS = {"u2": lt.CUDA_R_16BF, "f4": lt.CUDA_R_32F, "f8": lt.CUDA_R_64F}
EPILOGUES = {  # by (bias, relu)
    (False, False): lt.CUBLASLT_EPILOGUE_DEFAULT,
    (False, True): lt.CUBLASLT_EPILOGUE_RELU,
    (True, False): lt.CUBLASLT_EPILOGUE_BIAS,
    (True, True): lt.CUBLASLT_EPILOGUE_RELU_BIAS,
}


class Product(NamedTuple):
    """A kind of matmul: c (M, N) = a (M, K)·b (K, N), then + bias, then max(·, 0).

    An operand is transposed if its transpose is C-contiguous. `aligned` lists the alignments in
    bytes of a, of b, of the bias (0 for none), and of both c and the array that is added to it.
    """

    m: int
    n: int
    k: int
    a_transposed: bool
    b_transposed: bool
    operands: str  # "u2" for bfloat16, "f4", "f8"
    tf32: bool
    relu: bool
    aligned: tuple[int, int, int, int]

    @property
    def compute(self) -> int:
        if self.operands == "f8":
            return lt.CUBLAS_COMPUTE_64F
        return lt.CUBLAS_COMPUTE_32F_FAST_TF32 if self.tf32 else lt.CUBLAS_COMPUTE_32F

    @property
    def result(self) -> int:
        """The type of c, of the bias and of the scalars α and β."""
        return lt.CUDA_R_64F if self.operands == "f8" else lt.CUDA_R_32F


class Plan:
    """One kind of matmul, with its algorithm.

    Args:
        bias: the address of a bias of this alignment, or 0. The heuristic uses it.

    Raises:
        CublasError: cuBLASLt has no algorithm for it, or fails.
    """

    api: Api
    handle: c_void_p
    one: ctypes.c_double | ctypes.c_float
    zero: ctypes.c_double | ctypes.c_float

    def __init__(self, api: Api, handle: c_void_p, product: Product, bias: int) -> None:
        p, self.api, self.handle = product, api, handle
        self.operation: c_void_p = api.create("MatmulDesc", p.compute, p.result)
        transposed = {
            lt.CUBLASLT_MATMUL_DESC_TRANSA: p.b_transposed,
            lt.CUBLASLT_MATMUL_DESC_TRANSB: p.a_transposed,
        }
        for attribute, flag in transposed.items():
            value = c_int32(lt.CUBLAS_OP_T if flag else lt.CUBLAS_OP_N)
            api.set("MatmulDesc", self.operation, attribute, value)
        epilogue = c_uint32(EPILOGUES[bool(p.aligned[2]), p.relu])
        api.set("MatmulDesc", self.operation, lt.CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)
        if bias:
            self._set_bias(bias)
        operands = OPERANDS[p.operands]
        self.first: c_void_p = self._layout(operands, p.n, p.k, p.b_transposed)
        self.second: c_void_p = self._layout(operands, p.k, p.m, p.a_transposed)
        self.result: c_void_p = self._layout(p.result, p.n, p.m, False)
        number = c_double if p.operands == "f8" else c_float
        self.one, self.zero = number(1), number(0)
        self.algorithm: Any = self._chosen(p)

    def _layout(self, dtype: int, rows: int, columns: int, transposed: bool) -> c_void_p:
        """The layout of a column-major matrix (rows, columns), or of one stored transposed."""
        if transposed:
            rows, columns = columns, rows
        return self.api.create("MatrixLayout", dtype, rows, columns, rows)

    def _set_bias(self, address: int) -> None:
        attribute = lt.CUBLASLT_MATMUL_DESC_BIAS_POINTER
        self.api.set("MatmulDesc", self.operation, attribute, c_void_p(address))

    def _chosen(self, product: Product) -> Any:
        """The algorithm that the heuristic expects to be the fastest."""
        preference = self.api.create("MatmulPreference")
        a, b, _, c = product.aligned
        values = {
            lt.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: c_uint64(workspace().size),
            lt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: c_uint32(b),
            lt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: c_uint32(a),
            lt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: c_uint32(c),
            lt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: c_uint32(c),
        }
        for attribute, value in values.items():
            self.api.set("MatmulPreference", preference, attribute, value)
        best, found = HeuristicResult(), c_int()
        layouts = (self.first, self.second, self.result, self.result)
        name = "cublasLtMatmulAlgoGetHeuristic"
        try:
            arguments = (*layouts, preference, 1, byref(best), byref(found))
            self.api(name, self.handle, self.operation, *arguments)
        finally:
            self.api("cublasLtMatmulPreferenceDestroy", preference)
        if not found.value or best.state != lt.CUBLAS_STATUS_SUCCESS:
            raise CublasError(f"{name} found no algorithm", lt.CUBLAS_STATUS_NOT_SUPPORTED)
        return best.algo

    def run(self, a: int, b: int, bias: int, c: int, plus: int, stream: int) -> None:
        """Multiply the arrays at these addresses, and add the one at `plus` (0 for none)."""
        if bias:
            self._set_bias(bias)
        space = workspace()
        beta, before = (self.one, plus) if plus else (self.zero, c)
        self.api(
            "cublasLtMatmul",
            *(self.handle, self.operation, byref(self.one), b, self.first, a, self.second),
            *(byref(beta), before, self.result, c, self.result),
            *(ctypes.addressof(self.algorithm), space.data.ptr, space.size, stream),
        )


class Library:
    """cuBLASLt on one device: its handle and its plans. A lock admits one thread at a time."""

    api: Api
    handle: c_void_p

    def __init__(self, api: Api) -> None:
        self.api, self.handle = api, api.create("")
        self.plans: dict[Product, Plan | None] = {}
        self.lock: threading.Lock = threading.Lock()

    def run(self, product: Product, a: int, b: int, bias: int, c: int, plus: int) -> bool:
        """Run the matmul if there is a plan for it; returns whether there is.

        Raises:
            RuntimeError: a plan would have to be made while the stream captures.
            CublasError: cuBLASLt fails.
        """
        stream = cupy().cuda.get_current_stream()
        with self.lock:
            if product not in self.plans:
                if stream.is_capturing():
                    raise RuntimeError(
                        f"there is no plan yet for the product {product}, and none can be made "
                        "while a stream captures: run the function once before it is captured"
                    )
                self.plans[product] = self._plan(product, bias)
            plan = self.plans[product]
            if plan is not None:
                plan.run(a, b, bias, c, plus, stream.ptr)
        return plan is not None

    def _plan(self, product: Product, bias: int) -> Plan | None:
        try:
            return Plan(self.api, self.handle, product, bias)
        except CublasError as error:
            if error.status != lt.CUBLAS_STATUS_NOT_SUPPORTED:
                raise
            announce(f"our own matrix product runs in place of cuBLASLt's for {product}: {error}")
            return None


_libraries: dict[Any, Library | None] = {}


def library() -> Library | None:
    """cuBLASLt on the current device, or None, with a warning, if it is not available."""
    xp = cupy()
    key = (xp, xp.cuda.Device().id)
    if key not in _libraries:
        try:
            _libraries[key] = Library(lt.load())
        except Unavailable as error:
            announce(
                f"our own matrix products run in place of cuBLASLt's, which is not there: {error}. "
                'Install the package nvidia-cublas, or ask for set_library("own")'
            )
            _libraries[key] = None
    return _libraries[key]


def multiply(a: Any, b: Any, bias: Any, relu: bool, tf32: bool, out: Any, plus: Any = None) -> bool:
    """Write a @ b + plus + bias to `out`, or its ReLU. Returns False if cuBLASLt cannot.

    Args:
        a, b: (M, K) and (K, N), each C-contiguous or the transpose of such an array; of float32,
            of float64, or of bfloat16 stored as uint16. No size is 0.
        bias: (N,) C-contiguous, of `out`'s dtype, or None.
        tf32: operands of float32 may be rounded to TF32.
        out: (M, N), C-contiguous, float64 for operands of float64, else float32.
        plus: another array of the shape and dtype of `out`, or None.
    """
    found = library()
    if found is None:
        return False
    addresses = [0 if array is None else array.data.ptr for array in (a, b, bias, out, plus)]
    *aligned, of_out = (_alignment(address) for address in addresses[:4])
    of_both = min(of_out, _alignment(addresses[4]) or of_out)
    product = Product(
        m=a.shape[0],
        n=b.shape[1],
        k=a.shape[1],
        a_transposed=not a.flags.c_contiguous,
        b_transposed=not b.flags.c_contiguous,
        operands=a.dtype.str[1:],
        tf32=tf32 and a.dtype == np.float32,
        relu=relu,
        aligned=(*aligned, of_both),  # type: ignore[arg-type]
    )
    return found.run(product, *addresses)


def _alignment(address: int) -> int:
    """The largest power of 2, up to 256, that divides an address; 0 for no address."""
    return min(address & -address, MOST_ALIGNED)
