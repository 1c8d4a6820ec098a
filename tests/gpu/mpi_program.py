"""The program of the ranks in `test_mpi.py`: a training on the stand-in for CuPy, one GPU per rank.

mpirun -n 2 python mpi_program.py KERNELS SETTINGS.json
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from minigrad import device
from minigrad.precision import set_precision
from tests.gpu.shim.build import why_unavailable
from tests.gpu.sources import SOURCES
from tests.gpu.stand_in import Libraries, StandIn
from tests.tinyalpaca.distributed_program import train


def main() -> None:
    kernels, settings = Path(sys.argv[1]), Path(sys.argv[2])
    assert why_unavailable() is None
    stand_in = StandIn(Libraries(kernels, {s.text(): s.expressions() for s in SOURCES}.get))
    stand_in.engine.devices = 2
    sys.modules["cupy"] = stand_in
    device.cupy.cache_clear()
    set_precision("fp32")
    run = train(json.loads(settings.read_text(encoding="utf-8")))
    found = {
        "device": str(run.task.parameters[0].device),
        "graphs": getattr(getattr(run.steps, "launched", None), "graphs", None),
        "losses": [loss for _, loss in run.metrics.losses],
        "hash": run.task.engine.flat.array.get().tobytes().hex()[:4000],
    }
    name = settings.parent / f"{os.environ['PMI_RANK']}.json"
    name.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
