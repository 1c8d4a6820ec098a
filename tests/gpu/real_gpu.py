"""The tests of the kernels, run by CuPy on a GPU instead of by the stand-in on the CPU.

With `MINIGRAD_REAL_GPU=1` in the environment the fixture `gpu` gives CuPy. Tests marked `stand_in`
are skipped then; a test that looks at counters which only the stand-in has is skipped at that line,
after its checks of values. Launches of our kernels are counted here too.

With `MINIGRAD_NO_POOL=1` every array is an allocation of its own, so that a tool that watches
memory sees where it ends.
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
    """What a test may tell the stand-in: a GPU orders its threads as it likes."""

    schedule = 0

    def __getattr__(self, name: str) -> NoReturn:
        pytest.skip(f"{IN_PART} engine ({name})")


class Counts(Counter[str]):
    """How often each kernel was launched. What else the stand-in counts, nobody counts here."""

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
    """cuBLASLt, with the places where tests look at the stand-in."""

    def __getattr__(self, name: str) -> NoReturn:
        pytest.skip(f"{IN_PART} cuBLASLt ({name})")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        pytest.skip(f"{IN_PART} cuBLASLt ({name})")


class RealGpu:
    """CuPy, with the places where tests look at the stand-in."""

    def __init__(self) -> None:
        self._cupy = cupy()
        self.engine, self.counts = Engine(), Counts()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cupy, name)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[RealGpu]:
    """The GPU; `launched` learns which kernels run."""
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
    gpu.cuda.Device().synchronize()  # an error of this test is not the next one's
