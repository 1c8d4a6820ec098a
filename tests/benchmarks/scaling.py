"""Measures how the time of a training step grows with batch, sequence, width, depth and workers.

    python -m tests.benchmarks.scaling --rounds 5 --json FILE

All sizes of a sweep and the peer take turns, so a slow moment of the machine affects all of them.
The peer has as many threads as we have workers.
"""

from __future__ import annotations

import argparse
import sys
from math import log
from typing import Any

from minigrad.parallel import available_cores
from tests.benchmarks.contest import (
    Contender,
    Contest,
    compared,
    require,
    require_equal,
    table,
    write_json,
)
from tests.benchmarks.workloads import WORKLOADS, Workload

MODULE = "tests.benchmarks"
BASE = WORKLOADS["seed"]
SWEEPS: dict[str, list[Workload]] = {
    "batch": [BASE._replace(batch=n) for n in (8, 16, 32, 64, 128)],
    "time": [BASE._replace(time=n) for n in (32, 64, 128, 256, 512)],
    "d_model": [BASE._replace(d_model=n, d_ff=4 * n) for n in (32, 64, 128, 256)],
    "layers": [BASE._replace(layers=n) for n in (1, 2, 4, 8)],
}


def measure(
    options: dict[str, dict[str, Any]], against: str, rounds: int
) -> dict[str, dict[str, float]]:
    """`ours_ms`, and with a peer `peer_ms` and `ratio`, for each named set of options."""
    contenders = [Contender(name, f"{MODULE}.workloads:Ours", o) for name, o in options.items()]
    if against != "none":
        factory = f"{MODULE}.{against}_peer:Peer"
        for name, o in options.items():
            threads = o.get("workers") or available_cores()
            peer = {"workload": o["workload"], "threads": threads}
            contenders.append(Contender(f"{name} {against}", factory, peer))
    with Contest(contenders) as contest:
        if against != "none":
            for name in options:
                both = (name, f"{name} {against}")
                require_equal({side: contest.call(side, "forward") for side in both})
        times = contest.times("step", rounds)
    return {name: compared(times[name], times.get(f"{name} {against}")) for name in options}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--against", choices=("torch", "jax", "none"), default="torch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file for the record")
    args = parser.parse_args(argv)
    require(args.against)
    record: dict[str, Any] = {
        "benchmark": "scaling",
        "workload": "seed, one size varied at a time",
        "against": args.against,
        "base": BASE._asdict(),
        "sweeps": {},
    }
    rows = [["sweep", "size", "step (ms)", "growth", f"{args.against} (ms)", "peer / ours"]]
    for name, sizes in SWEEPS.items():
        options = {str(getattr(w, name)): {"workload": tuple(w)} for w in sizes}
        found = record["sweeps"][name] = measure(options, args.against, args.rounds)
        previous = None
        for size, times in found.items():
            growth, ms = "", times["ours_ms"]
            if previous is not None:
                exponent = log(ms / previous[1]) / log(int(size) / int(previous[0]))
                growth = f"size^{exponent:.2f}"
            rows.append([name, size, f"{ms:.1f}", growth, *beside(times)])
            previous = (size, ms)
    counts = [1, 2, *([available_cores()] if available_cores() > 2 else [])]
    options = {f"{n}": {"workload": tuple(BASE), "workers": n} for n in counts}
    found = record["sweeps"]["workers"] = measure(options, args.against, args.rounds)
    for size, times in found.items():
        speedup = found["1"]["ours_ms"] / times["ours_ms"]
        row = ["workers", size, f"{times['ours_ms']:.1f}", f"{speedup:.2f}x of one"]
        rows.append([*row, *beside(times)])
    rows = rows if args.against != "none" else [row[:4] for row in rows]
    print(table(rows))
    write_json(args.json, record)
    return 0


def beside(times: dict[str, float]) -> list[str]:
    """The peer's cells of a row."""
    return [f"{times['peer_ms']:.1f}", f"{times['ratio']:.2f}x"] if "ratio" in times else ["", ""]


if __name__ == "__main__":
    sys.exit(main())
