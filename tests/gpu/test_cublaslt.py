"""Matmuls by cuBLASLt, on a stand-in for the library: which calls are made, when, with which bytes.

test_gemm_kernel.py compares the results with the textbook, for both libraries.
"""

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from minigrad import KernelFallbackWarning
from minigrad.kernels.cuda import KERNELS, cublaslt, gemm
from minigrad.kernels.cuda import cublaslt_api as lt
from minigrad.kernels.cuda.bf16 import from_bf16, to_bf16
from minigrad.ops import TEXTBOOK
from tests.gpu.stand_in import FakeCublasLt
from tests.gpu.twins import assert_close, check_twin


def arrays(gpu, rng, m=9, n=7, k=33, dtype=np.float32):
    a, b, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (n,)))
    return (a, b, bias), tuple(gpu.asarray(x) for x in (a, b, bias))


def test_one_call_a_product_and_one_plan_a_kind(gpu, cublas, rng):
    (a, b, bias), on_device = arrays(gpu, rng)
    before = gpu.counts["launches"]
    for _ in range(3):
        got = gemm.multiply(*on_device, relu=True)
        assert_close(got, np.maximum(a @ b + bias, 0), "max(a·b + bias, 0)")
    assert gpu.counts["heuristic"] == 1
    assert gpu.counts["launches"] - before == 3 + 1  # one more made the workspace
    gemm.multiply(*on_device)
    gemm.multiply(on_device[0], on_device[1])
    assert gpu.counts["heuristic"] == 3
    with gemm.library("own"):
        gemm.multiply(*on_device)
    assert (gpu.counts["cublasLtMatmul"], gpu.counts["gemm_fma"]) == (5, 1)


def test_each_bias_has_its_own_address(gpu, cublas, rng):
    """Several matmuls use one plan; the bias of the previous one must not stay."""
    (a, b, bias), (left, right, first) = arrays(gpu, rng)
    second = gpu.asarray(bias + 1)
    for vector, wanted in ((first, bias), (second, bias + 1), (first, bias)):
        assert_close(gemm.multiply(left, right, vector), a @ b + wanted, "a·b + bias")
    assert gpu.counts["heuristic"] == 1


def test_arrays_that_begin_anywhere(gpu, cublas, rng):
    """Weights that are parts of one array do so. Less aligned ones need another algorithm."""
    (a, b, bias), _ = arrays(gpu, rng)
    flat = gpu.zeros(1000, np.float32)
    for start in (0, 1, 2, 4, 5):
        places, here = [], start
        for x in (a, b, bias):
            place = flat[here : here + x.size].reshape(x.shape)
            place[...] = gpu.asarray(x)
            places.append(place)
            here += x.size
        into = flat[here : here + 63].reshape(9, 7)
        assert gemm.multiply(*places, into=into) is into
        assert_close(into, a @ b + bias, "a·b + bias")
    assert gpu.counts["heuristic"] == gpu.counts["cublasLtMatmul"] == 5


def test_a_capture_needs_a_plan(gpu, cublas, rng):
    (a, b, bias), (left, right, vector) = arrays(gpu, rng)
    stream, out = gpu.cuda.Stream(non_blocking=True), gpu.zeros((9, 7), np.float32)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match=r"no plan yet for .*m=9, n=7.*run the function onc"):
            gemm.multiply(left, right, vector, into=out)
        stream.end_capture()
        gemm.multiply(left, right, vector, into=out)
        stream.begin_capture()
        gemm.multiply(left, right, vector, into=out)
        graph = stream.end_capture()
    stream.synchronize()
    left *= 2
    graph.launch()
    assert_close(out, 2 * a @ b + bias, "2a·b + bias")
    assert cublas.reasons == []


def test_each_stream_has_a_workspace(gpu, cublas, rng):
    _, (left, right, _) = arrays(gpu, rng)
    gemm.multiply(left, right)
    with gpu.cuda.Stream(non_blocking=True):
        gemm.multiply(left, right)
    assert gpu.counts["heuristic"] == 1
    assert len(cublas.workspaces) == 2


def test_an_epilogue_without_an_algorithm(gpu, cublas, rng):
    (a, b, bias), on_device = arrays(gpu, rng)
    cublas.without = {6}
    with pytest.warns(KernelFallbackWarning, match=r"in place of cuBLASLt's for .*relu=True"):
        got = gemm.multiply(*on_device, relu=True)
    assert_close(got, np.maximum(a @ b + bias, 0), "max(a·b + bias, 0)")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gemm.multiply(*on_device, relu=True)
        gemm.multiply(*on_device)
    assert gpu.counts["gemm_fma"] == 2 and gpu.counts["cublasLtMatmul"] == 1


def test_bfloat16_without_an_algorithm(gpu, cublas, rng):
    (a, b, _), (left, right, _) = arrays(gpu, rng)
    cublas.without = {1}
    with gemm.precision("bf16"), pytest.warns(KernelFallbackWarning, match="operands='u2'"):
        got = gemm.multiply(left, right)
    assert_close(got, a @ b, "a·b", 1e-2)
    assert gpu.counts["gemm_bf16"] == 1


@pytest.mark.stand_in
def test_a_library_that_is_not_there(gpu, rng, monkeypatch):
    (a, b, _), (left, right, _) = arrays(gpu, rng)

    def load():
        raise lt.Unavailable("libcublasLt.so.13: cannot open shared object file")

    monkeypatch.setattr(lt, "load", load)
    gemm.set_library("cublaslt")
    with pytest.warns(KernelFallbackWarning, match="cannot open.*Install the package nvidia-cu"):
        got = gemm.multiply(left, right)
    assert_close(got, a @ b, "a·b")
    gemm.multiply(left, right)
    assert gpu.counts["gemm_fma"] == 2


@pytest.mark.stand_in
def test_libraries_that_are_too_old(gpu):
    with pytest.raises(lt.Unavailable, match="110100 is older than 120000"):
        lt.Api(FakeCublasLt(gpu, version=110_100))
    with pytest.raises(lt.Unavailable, match=r"lacks a function .*cublasLtCreate"):
        lt.Api(SimpleNamespace())


@pytest.mark.stand_in
def test_a_failure_names_the_function_and_the_reason(gpu, cublas, rng, monkeypatch):
    _, (left, right, _) = arrays(gpu, rng)
    monkeypatch.setattr(cublaslt, "OPERANDS", {"f4": 99})
    with pytest.raises(lt.CublasError, match=r"MatrixLayoutCreate failed with status 7: .*no such"):
        gemm.multiply(left, right)


def test_small_products_are_our_own(gpu, cublas, rng, monkeypatch):
    gemm.set_library("auto")
    monkeypatch.setattr(gemm, "SMALL", 5 * 4 * 6)
    for rows, ours in ((5, True), (6, False)):
        gpu.counts.clear()
        x, w, b = (rng.standard_normal(shape) for shape in ((rows, 6), (4, 6), (4,)))
        with gemm.precision("bf16"):
            check_twin(gpu, "linear", [x, w, b], np.float32, tolerance=1e-2, activation="relu")
        assert gpu.counts["linear_backward_bf16"] == gpu.counts["gemm_bf16"] == 2 * ours
        assert gpu.counts["cublasLtMatmul"] == 6 * (not ours)
        assert bool(gpu.counts["to_bf16"]) is not ours


def test_names_of_libraries():
    with pytest.raises(ValueError, match="'mkl': choose from auto, cublaslt, own"):
        gemm.set_library("mkl")
    with pytest.raises(ValueError, match="no library 'rocblas'"), gemm.library("rocblas"):
        pass


@pytest.fixture
def asked(monkeypatch):
    """The places where cuBLASLt is searched, in order; none has it."""
    places = []

    def open_library(path):
        places.append(str(path))
        raise OSError(f"{path}: not here")

    monkeypatch.setattr(lt.ctypes, "CDLL", open_library)
    monkeypatch.setattr(lt, "_loaded", lambda: ["/x/libcublasLt.so.13"])
    return places


def finder(monkeypatch, load):
    module = SimpleNamespace(load_nvidia_dynamic_lib=load)
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(pathfinder=module))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", module)


def test_loading_asks_cupys_own_finder_first(monkeypatch, asked, tmp_path):
    """On Windows only this finder knows where a DLL is."""
    dll = r"C:\site-packages\nvidia\cu13\bin\x86_64\cublasLt64_13.dll"
    finder(monkeypatch, lambda name: SimpleNamespace(abs_path=dll) if name == "cublasLt" else None)
    package = tmp_path / "nvidia" / "cu13" / "lib"
    package.mkdir(parents=True)
    (package / "libcublasLt.so.13").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(lt.Unavailable, match=r"dll: not here; /x/libcublasLt.so.13"):
        lt.load()
    names = ["libcublasLt.so.13", "libcublasLt.so.12"]
    assert asked[:4] == [dll, "/x/libcublasLt.so.13", *names]
    assert str(package / "libcublasLt.so.13") in asked


@pytest.mark.parametrize("error", [RuntimeError("no cublasLt\n in /y"), ImportError("no finder")])
def test_loading_without_cupys_finder(monkeypatch, asked, error):
    def load(name):
        raise error

    finder(monkeypatch, load)
    with pytest.raises(lt.Unavailable) as raised:
        lt.load()
    assert str(raised.value).startswith(" ".join(str(error).split()) + "; /x/libcublasLt.so.13: n")
    assert "\n" not in str(raised.value) and asked[1] == "libcublasLt.so.13"


# Faults, each in one line of our code, that the stand-in must find.
FAULTS = {
    "the transposed flags are exchanged": (
        *(lt, "CUBLASLT_MATMUL_DESC_TRANSA", 4),
        *(lt, "CUBLASLT_MATMUL_DESC_TRANSB", 3),
    ),
    "another epilogue": (cublaslt, "EPILOGUES", dict.fromkeys(cublaslt.EPILOGUES, 4)),
    "another attribute for the bias": (lt, "CUBLASLT_MATMUL_DESC_BIAS_POINTER", 11),
    "another type of results": (lt, "CUDA_R_32F", 1),
    "another compute type": (lt, "CUBLAS_COMPUTE_32F", 70),
    "alignments of other operands": (lt, "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES", 2),
    "a flag of another width": (cublaslt, "c_int32", cublaslt.c_uint64),
    "no workspace": (cublaslt, "workspace", lambda: SimpleNamespace(size=0)),
    "everything is aligned": (cublaslt, "_alignment", lambda address: 256 if address else 0),
    "the bias is set after the heuristic": (
        *(cublaslt.Plan, "_set_bias", lambda plan, address: None),
    ),
}


@pytest.mark.stand_in
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(gpu, cublas, rng, monkeypatch, name):
    def check():
        x, w, b = (rng.standard_normal(shape) for shape in ((5, 6), (4, 6), (4,)))
        check_twin(gpu, "linear", [x, w, b], np.float32, activation="relu")

    check()
    cublaslt._libraries.clear()
    fault = FAULTS[name]
    for i in range(0, len(fault), 3):
        monkeypatch.setattr(*fault[i : i + 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KernelFallbackWarning)
        launches = gpu.counts["cublasLtMatmul"]
        try:
            check()
        except (AssertionError, RuntimeError, KeyError):
            return
    assert gpu.counts["cublasLtMatmul"] == launches, "the fault was not found"


@pytest.mark.parametrize("shape", [(7, 5), (1000, 3), (16, 8), (0, 4)])
def test_rounding_to_bfloat16_and_back(gpu, rng, shape):
    a, b = (rng.standard_normal(shape).astype(np.float32) * 10.0 ** rng.integers(-30, 30, shape)
            for _ in range(2))  # fmt: skip
    a, b = a.astype(np.float32), b.astype(np.float32)
    if a.size:
        a[0, :3] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, np.inf  # ties are rounded to even
        b[0, :3] = -np.inf, np.nan, -0.0
    for array, rounded in zip((a, b), to_bf16(gpu.asarray(a), gpu.asarray(b)), strict=True):
        assert rounded.dtype == np.uint16
        back = from_bf16(rounded).get()
        np.testing.assert_allclose(back, array, rtol=2.0**-8)
        assert not (back.view(np.uint32) & 0xFFFF).any()
        assert (np.signbit(back) == np.signbit(array))[~np.isnan(array)].all()
        if array is a and a.size:
            np.testing.assert_array_equal(back[0, :2], [1, 1 + 4 * 2.0**-8])
    transposed = to_bf16(gpu.asarray(a).T)[0]
    assert transposed.shape == shape[::-1]
    np.testing.assert_array_equal(
        from_bf16(transposed).get(), from_bf16(to_bf16(gpu.asarray(a))[0]).get().T
    )


@pytest.mark.parametrize("start", [0, 1, 4])
def test_rounding_of_arrays_that_begin_anywhere(gpu, rng, start):
    flat = gpu.asarray(rng.standard_normal(100).astype(np.float32))
    (rounded,) = to_bf16(flat[start : start + 67])
    wanted = from_bf16(to_bf16(gpu.asarray(flat.get()[start : start + 67]))[0]).get()
    np.testing.assert_array_equal(from_bf16(rounded).get(), wanted)


def test_a_linear_layer_rounds_each_array_once(gpu, cublas, rng):
    x, w = (gpu.asarray(rng.standard_normal((8, 8)).astype(np.float32)) for _ in range(2))
    with gemm.precision("bf16"):
        y, saved = KERNELS[TEXTBOOK["linear"]].forward(x, w, None)
    assert gpu.counts["to_bf16"] == 1
    KERNELS[TEXTBOOK["linear"]].backward(y, saved, (True, True, False))
    assert gpu.counts["to_bf16"] == 2 and gpu.counts["cublasLtMatmul"] == 3
