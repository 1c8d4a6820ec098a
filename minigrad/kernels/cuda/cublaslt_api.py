"""The part of cuBLASLt's C interface that we call, through ctypes.

Names and values are those of NVIDIA's cublasLt.h. A test compares every one of them with that file,
because a wrong number here would not raise an error but compute something else.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint64, c_void_p
from glob import glob
from typing import Any

CUDA_R_32F, CUDA_R_64F, CUDA_R_16BF = 0, 1, 14
CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_64F = 68, 77, 70
CUBLAS_OP_N, CUBLAS_OP_T = 0, 1
CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_RELU = 1, 2
CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_RELU_BIAS = 4, 6
CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB = 3, 4
CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_BIAS_POINTER = 7, 8
CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1
CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 5, 6
CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 7, 8
CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_NOT_SUPPORTED = 0, 15

OLDEST = 120_000  # version 12.0: CUDA 12
NEWEST_FIRST = ("libcublasLt.so.13", "libcublasLt.so.12")  # on Linux


class HeuristicResult(ctypes.Structure):
    """`cublasLtMatmulHeuristicResult_t`. It begins with the algorithm, which is opaque."""

    _fields_ = (
        ("algo", c_uint64 * 8),
        ("workspace_size", c_size_t),
        ("state", c_int),
        ("waves_count", c_float),
        ("reserved", c_int * 4),
    )


_NEW, _POINTER = POINTER(c_void_p), c_void_p
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cublasLtCreate": (_NEW,),
    "cublasLtMatmulDescCreate": (_NEW, c_int, c_int),
    "cublasLtMatmulDescSetAttribute": (_POINTER, c_int, _POINTER, c_size_t),
    "cublasLtMatrixLayoutCreate": (_NEW, c_int, c_uint64, c_uint64, c_int64),
    "cublasLtMatmulPreferenceCreate": (_NEW,),
    "cublasLtMatmulPreferenceSetAttribute": (_POINTER, c_int, _POINTER, c_size_t),
    "cublasLtMatmulPreferenceDestroy": (_POINTER,),
    # handle, operation, layouts of A, B, C, D, preference, number requested, results, number found
    "cublasLtMatmulAlgoGetHeuristic": (
        *(_POINTER,) * 7,
        *(c_int, POINTER(HeuristicResult), POINTER(c_int)),
    ),
    # handle, operation, α, A, its layout, B, its layout, β, C, its layout, D, its layout,
    # algorithm, workspace, its size, stream
    "cublasLtMatmul": (*(_POINTER,) * 14, c_size_t, _POINTER),
}


class CublasError(RuntimeError):
    """A call of cuBLASLt that failed. Names the function and the status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(RuntimeError):
    """There is no cuBLASLt, or one that is too old."""


class Api:
    """The functions of `PROTOTYPES`; each raises an error if it fails.

    Args:
        library: a `ctypes.CDLL`.

    Raises:
        Unavailable: it lacks a function, or is older than `OLDEST`.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        try:
            self._functions = {name: getattr(library, name) for name in PROTOTYPES}
            self._status_string = library.cublasLtGetStatusString
            version = library.cublasLtGetVersion
        except AttributeError as error:
            raise Unavailable(f"the cuBLASLt that was found lacks a function ({error})") from error
        for name, function in self._functions.items():
            function.argtypes, function.restype = PROTOTYPES[name], c_int
        self._status_string.argtypes, self._status_string.restype = (c_int,), c_char_p
        version.argtypes, version.restype = (), c_size_t
        self.version: int = int(version())
        if self.version < OLDEST:
            raise Unavailable(f"cuBLASLt {self.version} is older than {OLDEST}, of CUDA 12")

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call the function of this name.

        Raises:
            CublasError: its status is not success.
        """
        status = self._functions[name](*arguments)
        if status != CUBLAS_STATUS_SUCCESS:
            why = (self._status_string(status) or b"?").decode()
            raise CublasError(f"{name} failed with status {status}: {why}", status)

    def create(self, what: str, *arguments: Any) -> c_void_p:
        """A new object from `cublasLt...Create`."""
        result = c_void_p()
        self(f"cublasLt{what}Create", ctypes.byref(result), *arguments)
        return result

    def set(self, what: str, target: c_void_p, attribute: int, value: Any) -> None:
        """Set an attribute to a ctypes value of exactly the attribute's type."""
        size = ctypes.sizeof(value)
        self(f"cublasLt{what}SetAttribute", target, attribute, ctypes.byref(value), size)


def load() -> Api:
    """Load cuBLASLt, from where CuPy takes its libraries, or else from the system.

    Raises:
        Unavailable: there is none, or it is too old.
    """
    reasons: list[str] = []
    for path in _places(reasons):
        try:
            return Api(ctypes.CDLL(path))
        except (OSError, Unavailable) as error:
            reasons.append(str(error))
    raise Unavailable("; ".join(dict.fromkeys(reasons)))


def _places(reasons: list[str]) -> Iterator[str]:
    """Paths or names under which cuBLASLt may be found, in the order to try.

    First comes what cuda.pathfinder finds, which CuPy uses too: it knows NVIDIA's packages, conda
    and toolkits, on Windows as well. If it finds nothing, the reason is added to `reasons`.
    """
    try:
        pathfinder = importlib.import_module("cuda.pathfinder")
        yield pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path
    except (ImportError, RuntimeError) as error:
        reasons.append(" ".join(str(error).split()))
    yield from _loaded()
    yield from NEWEST_FIRST
    yield from installed("lib/libcublasLt.so.1[23]")


def _loaded() -> list[str]:
    """Paths of the cuBLASLt that this process has already loaded."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            lines = maps.read().splitlines()
    except FileNotFoundError:  # not on Linux
        return []
    paths = [line.split(maxsplit=5)[5] for line in lines if "libcublasLt.so" in line]
    return list(dict.fromkeys(path for path in paths if path.startswith("/")))


def installed(pattern: str) -> list[str]:
    """Files `nvidia/*/{pattern}` of NVIDIA's Python packages, newest first."""
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return sorted((p for f in folders for p in glob(f"{f}/*/{pattern}")), reverse=True)
