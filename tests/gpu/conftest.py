"""Fixtures for the tests of the GPU path. No test needs a GPU; `real_gpu.py` says what changes with
one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigrad import announce, device
from minigrad.kernels.cuda import cublaslt, scratch
from minigrad.kernels.cuda.gemm import set_library
from minigrad.precision import set_precision
from tests.gpu import real_gpu
from tests.gpu.shim.build import why_unavailable
from tests.gpu.sources import SOURCES
from tests.gpu.stand_in import FakeCublasLt, Libraries, StandIn

ROOT = Path(__file__).parents[2]
# These run kernels thread by thread, generate texts or rehearse the proof, which takes minutes.
SLOW = {
    *(
        "test_attention_kernel",
        "test_attention_mma",
        "test_decode_inference",
        "test_decode_kernels",
    ),
    *("test_draw_kernel", "test_gemm_kernel", "test_generation", "test_prove", "test_row_kernels"),
}
ENOUGH = 500  # with fewer tests of this folder, compiling ahead does not pay off
AHEAD = pytest.StashKey[Any]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "stand_in: is about the stand-in for CuPy, not about a GPU")
    if real_gpu.wanted():  # warnings of CuPy and CUDA are not errors of a test
        config.addinivalue_line("filterwarnings", "default:::cupy")
        config.addinivalue_line("filterwarnings", "default::DeprecationWarning")
        config.addinivalue_line("filterwarnings", "default::FutureWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if real_gpu.wanted() and item.get_closest_marker("stand_in"):
        pytest.skip("it is about the stand-in for CuPy")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Start compiling if most of these tests are going to run."""
    folder = kept(session.config)
    many = sum("tests/gpu/" in item.nodeid for item in session.items) >= ENOUGH
    alone = not hasattr(session.config, "workerinput") and not session.config.option.collectonly
    if many and alone and folder and not real_gpu.wanted() and why_unavailable() is None:
        command = [sys.executable, "-m", "tests.gpu.ahead", str(folder)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        session.config.stash[AHEAD] = process


def pytest_unconfigure(config: pytest.Config) -> None:
    process = config.stash.get(AHEAD, None)
    if process is not None:
        process.terminate()
        process.wait()


def kept(config: pytest.Config) -> Path | None:
    """The folder for compiled kernels; None without pytest's cache."""
    cache = getattr(config, "cache", None)
    return Path(cache.mkdir("kernels-on-cpu")) if cache else None


@pytest.fixture(scope="session")
def kept_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for compiled kernels, which the next run uses again."""
    return kept(request.config) or tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def libraries(kept_folder: Path) -> Libraries:
    """All kernels for the CPU. They are compiled at first use and cached by content."""
    if real_gpu.wanted():
        pytest.skip("it runs kernels on the CPU")
    reason = why_unavailable()
    if reason:
        pytest.skip(reason)
    by_code = {s.text(): s.expressions() for s in SOURCES}
    return Libraries(kept_folder, by_code.get)


@pytest.fixture
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stand-in replaces CuPy, with counters at 0. Our kernels compute matmuls, in fp32."""
    monkeypatch.setattr(announce, "_announced", set())
    monkeypatch.setattr(scratch, "_kept", {})
    monkeypatch.setattr(cublaslt, "_libraries", {})
    set_precision("fp32")
    set_library("own")
    if real_gpu.wanted():
        with real_gpu.watched(monkeypatch) as found:
            yield found
    else:
        stand_in = StandIn(request.getfixturevalue("libraries"))
        monkeypatch.setitem(sys.modules, "cupy", stand_in)
        device.cupy.cache_clear()
        yield stand_in
        device.cupy.cache_clear()
    set_precision(None)
    set_library("auto")


@pytest.fixture
def cublas(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for cuBLASLt, which computes all matmuls."""
    if real_gpu.wanted():
        set_library("cublaslt")
        return real_gpu.RealCublasLt()
    fake = FakeCublasLt(gpu)
    monkeypatch.setattr(cublaslt.lt, "load", lambda: cublaslt.Api(fake))
    monkeypatch.setattr(scratch, "WORKSPACE", 2**20)
    set_library("cublaslt")
    return fake


@pytest.fixture(params=["own", "cublaslt"])
def each_library(request: pytest.FixtureRequest) -> str:
    """The test runs once for every library that can compute matmuls."""
    if request.param == "cublaslt":
        request.getfixturevalue("cublas")
    return request.param
