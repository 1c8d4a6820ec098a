"""Every kernel compiles for the supported GPUs, without spilling registers to memory."""

import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest

from minigrad.kernels.cuda.compile import OPTIONS, Source
from tests.gpu import nvcc, nvrtc
from tests.gpu.nvcc import ARCHITECTURES
from tests.gpu.sources import SOURCES

FOLDERS = sorted({str(files(kernels.package)) for kernels in SOURCES})
MOST_SHARED = 48 * 1024  # bytes that a kernel may use on every GPU without a special setting


class Figures(NamedTuple):
    """What a kernel uses, per thread and per block."""

    registers: int
    stack: int
    spills: int
    shared: int


def figures(report: str) -> dict[str, dict[str, Figures]]:
    """The figures in a report of `ptxas -v`, by architecture and mangled name."""
    pattern = (
        r"Compiling entry function '(\w+)' for '(sm_\d+)'.*?(\d+) bytes stack frame, "
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)"
    )
    found: dict[str, dict[str, Figures]] = {}
    for name, arch, stack, stores, loads, registers, rest in re.findall(pattern, report, re.S):
        shared = re.search(r"(\d+) bytes smem", rest)
        found.setdefault(arch, {})[name] = Figures(
            int(registers), int(stack), int(stores) + int(loads), int(shared[1]) if shared else 0
        )
    return found


@pytest.fixture(scope="module")
def compiled(kept_folder: Path) -> dict[str, dict[str, Figures]]:
    """The figures of all kernels, from one run of nvcc."""
    reason = nvcc.why_unavailable()
    if reason:
        pytest.skip(reason)
    return figures(nvcc.report(kept_folder))


def readable(names: list[str]) -> dict[str, str]:
    """Demangled names without parameters, if the tool for that is installed."""
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None:
        return {name: name for name in names}
    text = subprocess.run([tool, "-p", *names], capture_output=True, text=True, check=True).stdout
    return dict(zip(names, text.replace("void ", "").splitlines(), strict=True))


@pytest.mark.slow
def test_kernels_need_no_spills_no_stack_and_little_shared_memory(
    compiled: dict[str, dict[str, Figures]], capsys: pytest.CaptureFixture[str]
) -> None:
    names = readable(list(compiled[ARCHITECTURES[0]]))
    with capsys.disabled():
        print(
            "\nregisters, bytes of stack and of spills, and of shared memory of a block on ", end=""
        )
        print(" and ".join(ARCHITECTURES))
        for mangled, name in sorted(names.items(), key=lambda item: item[1]):
            rows = [compiled[arch][mangled] for arch in ARCHITECTURES]
            counts = "".join(
                f"{r.registers:7d}{r.stack:4d}{r.spills:4d}{r.shared:7d}" for r in rows
            )
            print(f"  {name:44}{counts}")
    for arch in ARCHITECTURES:
        assert len(compiled[arch]) == len(nvcc.all_kernels())
        for mangled, kernel in compiled[arch].items():
            where = f"{names[mangled]} on {arch}: {kernel}"
            assert kernel.spills == 0, where
            assert kernel.stack == 0, where
            assert kernel.shared <= MOST_SHARED, where


@pytest.mark.parametrize("kernels", SOURCES, ids=lambda kernels: kernels.file)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp932"])
def test_sources_can_be_written_in_every_encoding(kernels: Source, encoding: str) -> None:
    """CuPy writes sources in the locale's encoding before NVRTC reads them."""
    kernels.text().encode(encoding)


def test_only_comments_lose_letters() -> None:
    for path in sorted(path for folder in FOLDERS for path in Path(folder).glob("*.cu*")):
        text = path.read_text(encoding="utf-8")
        assert re.sub(r"//.*", "", text).isascii() and "/*" not in text, path.name


def test_the_report_of_the_compiler_is_understood() -> None:
    report = (
        "ptxas info    : Compiling entry function '_Z1fPf' for 'sm_80'\n"
        "ptxas info    : Function properties for _Z1fPf\n"
        "    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n"
        "ptxas info    : Used 255 registers, used 1 barriers, 100 bytes smem, 360 bytes cmem[0]\n"
    )
    assert figures(report) == {"sm_80": {"_Z1fPf": Figures(255, 16, 12, 100)}}


@pytest.mark.slow
@pytest.mark.parametrize("kernels", SOURCES, ids=lambda kernels: kernels.file)
@pytest.mark.parametrize("major", nvrtc.OLDEST)
def test_nvrtc_compiles_what_cupy_will_give_it(
    kernels: Source, major: int, kept_folder: Path
) -> None:
    """For the oldest GPUs; the tests with nvcc above compile for newer ones."""
    if nvrtc.library(major) is None:
        pytest.skip(f"NVRTC of CUDA {major} is not installed: it comes with the extra bench")
    lines = nvrtc.log(kept_folder, major, kernels).splitlines()
    assert [line for line in lines if "are deprecated" not in line] == []


def test_nvrtc_says_what_is_wrong() -> None:
    library = nvrtc.library(13)
    if library is None:
        pytest.skip("NVRTC of CUDA 13 is not installed: it comes with the extra bench")
    with pytest.raises(nvrtc.CompileError, match=r"identifier .x. is undefined"):
        nvrtc.Program(library, "__global__ void f() { x = 1; }", ["f"], OPTIONS)


def test_importing_the_kernels_imports_no_cupy() -> None:
    code = "import sys, minigrad, minigrad.kernels.cuda; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
