"""The tests of the kernels, run by CuPy on a GPU instead of by the stand-in on the CPU.

With `MINIGRAD_REAL_GPU=1` in the environment the fixture `gpu` is CuPy. Tests marked `stand_in` are
then skipped. A test that reads counters of the stand-in is skipped at that line, after its checks
of values. Launches of our kernels are counted here too.

With `MINIGRAD_NO_POOL=1` every array is a separate allocation, so that a memory checker knows where
it ends.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import SOURCES, Source

IN_PART = "its values are right on this GPU; the rest of it looks at the stand-in's"
launched: set[str] = set()  # the kernels that have run, with template arguments


def wanted() -> bool:
    """True if tests are to use the GPU of this machine."""
    return os.environ.get("MINIGRAD_REAL_GPU") == "1"


class Engine:
    """The settings that a test may make on the stand-in. On a GPU they have no effect."""

    schedule = 0

    def __getattr__(self, name: str) -> NoReturn:
        pytest.skip(f"{IN_PART} engine ({name})")


class Counts(Counter[str]):
    """How often each kernel was launched. Other counters of the stand-in do not exist here."""

    def __getitem__(self, name: str) -> int:
        if name not in self.kernels:
            pytest.skip(f"{IN_PART} counters")
        return super().__getitem__(name)

    def keys(self) -> NoReturn:
        pytest.skip(f"{IN_PART} counters")

    __iter__ = keys

    @functools.cached_property
    def kernels(self) -> set[str]:
        return {t.partition("<")[0] for source in SOURCES for t in source.templates}


class RealCublasLt:
    """cuBLASLt, with the attributes of the stand-in that tests read."""

    def __getattr__(self, name: str) -> NoReturn:
        pytest.skip(f"{IN_PART} cuBLASLt ({name})")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        pytest.skip(f"{IN_PART} cuBLASLt ({name})")


class RealGpu:
    """CuPy, with the attributes of the stand-in that tests read."""

    def __init__(self) -> None:
        self._cupy = cupy()
        self.engine, self.counts = Engine(), Counts()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cupy, name)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[RealGpu]:
    """The GPU. The kernels that run are added to `launched`."""
    gpu, launch = RealGpu(), Source.launch

    def noting(source: Source, kernel: str, grid: Any, *args: Any, **kwargs: Any) -> None:
        launch(source, kernel, grid, *args, **kwargs)
        if min(grid):
            launched.add(kernel)
            gpu.counts[kernel.partition("<")[0]] += 1

    monkeypatch.setattr(Source, "launch", noting)
    if os.environ.get("MINIGRAD_NO_POOL") == "1":
        gpu.cuda.set_allocator(None)
    yield gpu
    gpu.cuda.Device().synchronize()  # so that an error shows in this test, not in the next one
