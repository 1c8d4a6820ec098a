"""What the tests of the GPU path share. None of them needs a GPU."""

import sys
from collections.abc import Iterator

import pytest

import minigrad.kernels.cuda  # noqa: F401 - so that SOURCES is complete
from minigrad import device
from minigrad.kernels import announce
from minigrad.kernels.cuda import cublaslt, scratch
from minigrad.kernels.cuda.compile import SOURCES, source
from minigrad.kernels.cuda.gemm import set_library
from minigrad.precision import set_precision
from tests.gpu.shim.build import why_unavailable
from tests.gpu.stand_in import FakeCublasLt, Libraries, StandIn


@pytest.fixture(scope="session")
def libraries(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Libraries:
    """All kernels for the CPU, compiled when they are asked for, kept by content in the cache."""
    reason = why_unavailable()
    if reason:
        pytest.skip(reason)
    by_code = {source(s.file): s.expressions() for s in SOURCES}
    cache = getattr(request.config, "cache", None)
    name = "kernels-on-cpu"
    folder = cache.mkdir(name) if cache else tmp_path_factory.mktemp(name)
    return Libraries(folder, by_code.__getitem__)


@pytest.fixture
def gpu(libraries: Libraries, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in in the place of CuPy, its counters at 0; products are exact, by our kernels."""
    stand_in = StandIn(libraries)
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    monkeypatch.setattr(announce, "_announced", set())
    monkeypatch.setattr(scratch, "_kept", {})
    monkeypatch.setattr(cublaslt, "_libraries", {})
    device.cupy.cache_clear()
    set_precision("fp32")
    set_library("own")
    yield stand_in
    set_precision(None)
    set_library("auto")
    device.cupy.cache_clear()


@pytest.fixture
def cublas(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> FakeCublasLt:
    """A stand-in for cuBLASLt, which computes the products."""
    fake = FakeCublasLt(gpu)
    monkeypatch.setattr(cublaslt.lt, "load", lambda xp: cublaslt.Api(fake))
    monkeypatch.setattr(scratch, "WORKSPACE", 2**20)
    set_library("cublaslt")
    return fake


@pytest.fixture(params=["own", "cublaslt"])
def each_library(request: pytest.FixtureRequest) -> str:
    """The test runs once for every library that can compute products."""
    if request.param == "cublaslt":
        request.getfixturevalue("cublas")
    return request.param
