"""The proof without a GPU: every process imports the stand-in for CuPy as `cupy`.

`install` writes a file `cupy.py` on Python's path for this. Such a run only shows that the proof's
own code works; its figures mean nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

from minigrad.kernels.cuda import cublaslt_api, scratch
from tests.gpu.sources import SOURCES
from tests.gpu.stand_in import FakeCublasLt, Libraries, StandIn

FOLDER = "MINIGRAD_KERNELS_ON_CPU"  # where compiled kernels are kept
CUPY = """import sys
from tests.gpu.proving.rehearsal import stand_in
sys.modules["cupy"] = stand_in()
"""


def stand_in() -> StandIn:
    """The stand-in, with everything that a proof needs from CuPy."""
    by_code = {s.text(): s.expressions() for s in SOURCES}
    made = StandIn(Libraries(Path(os.environ[FOLDER]), by_code.get))
    cublaslt_api.load = lambda: cublaslt_api.Api(FakeCublasLt(made))
    scratch.WORKSPACE = 2**20
    made.cuda.set_allocator = lambda allocator=None: None
    runtime = vars(made.cuda.runtime) | {"driverGetVersion": lambda: 13000}
    made.cuda.runtime = SimpleNamespace(**runtime, runtimeGetVersion=lambda: 13000)
    return made


def install(folder: Path, kernels: Path) -> dict[str, str]:
    """Write `cupy.py` into `folder`; returns the environment that makes processes import it."""
    (folder / "cupy.py").write_text(CUPY, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return {"PYTHONPATH": path, FOLDER: str(kernels)}
