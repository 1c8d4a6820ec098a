"""How the time of a training step grows with batch, sequence, width, depth and workers.

    python -m tests.benchmarks.scaling --rounds 5 --json FILE

All sizes of a sweep take turns, so a slow moment of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import sys
from math import log
from statistics import median
from typing import Any

from minigrad.parallel import available_cores
from tests.benchmarks.contest import Contender, Contest, table, write_json
from tests.benchmarks.workloads import WORKLOADS, Workload

BASE = WORKLOADS["seed"]
SWEEPS: dict[str, list[Workload]] = {
    "batch": [BASE._replace(batch=n) for n in (8, 16, 32, 64, 128)],
    "time": [BASE._replace(time=n) for n in (32, 64, 128, 256, 512)],
    "d_model": [BASE._replace(d_model=n, d_ff=4 * n) for n in (32, 64, 128, 256)],
    "layers": [BASE._replace(layers=n) for n in (1, 2, 4, 8)],
}


def measure(options: dict[str, dict[str, Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of a step, for each named set of options."""
    factory = "tests.benchmarks.workloads:Ours"
    with Contest([Contender(name, factory, o) for name, o in options.items()]) as contest:
        times = contest.times("step", rounds)
    return {name: 1e3 * median(seconds) for name, seconds in times.items()}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file for the record")
    args = parser.parse_args()
    record: dict[str, Any] = {"benchmark": "scaling", "base": BASE._asdict(), "sweeps": {}}
    rows = [["sweep", "size", "step (ms)", "growth"]]
    for name, sizes in SWEEPS.items():
        options = {str(getattr(w, name)): {"workload": tuple(w)} for w in sizes}
        times = measure(options, args.rounds)
        record["sweeps"][name] = times
        previous = None
        for size, ms in times.items():
            growth = ""
            if previous is not None:
                exponent = log(ms / previous[1]) / log(int(size) / int(previous[0]))
                growth = f"size^{exponent:.2f}"
            rows.append([name, size, f"{ms:.1f}", growth])
            previous = (size, ms)
    counts = [1, 2, *([available_cores()] if available_cores() > 2 else [])]
    options = {f"{n}": {"workload": tuple(BASE), "workers": n} for n in counts}
    times = measure(options, args.rounds)
    record["sweeps"]["workers"] = times
    for size, ms in times.items():
        rows.append(["workers", size, f"{ms:.1f}", f"{times['1'] / ms:.2f}x of one"])
    print(table(rows))
    write_json(args.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
