"""Times a training step and a forward pass, beside PyTorch or JAX.

    python -m tests.benchmarks.train_step --workload seed --against torch --rounds 20 --json FILE

A step is forward, cross-entropy, backward, gradient clipping and AdamW, in float32. Both sides get
the same weights and batch, and must give the same loss before anything is timed.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median
from typing import Any

from minigrad.parallel import available_cores
from tests.benchmarks.contest import (
    Contender,
    Contest,
    figures,
    require,
    require_equal,
    table,
    write_json,
)
from tests.benchmarks.workloads import WORKLOADS


def run(workload: str, against: str, rounds: int, workers: int, micro_batch_size: int) -> dict:
    """Time minigrad, and the peer if there is one; returns the record."""
    sizes = WORKLOADS[workload]
    workers = workers or available_cores()
    options = {"workload": tuple(sizes), "workers": workers, "micro_batch_size": micro_batch_size}
    contenders = [Contender("minigrad", "tests.benchmarks.workloads:Ours", options)]
    if against != "none":
        options = {"workload": tuple(sizes), "threads": workers}
        contenders.append(Contender(against, f"tests.benchmarks.{against}_peer:Peer", options))
    with Contest(contenders) as contest:
        names = [c.name for c in contenders]
        losses = {name: contest.call(name, "forward") for name in names}
        require_equal(losses)
        steps = contest.times("step", rounds)
        forwards = contest.times("forward", rounds)
        facts = {name: contest.call(name, "facts") for name in names}
        peaks = contest.peak_mb("step")
    record: dict[str, Any] = {
        "benchmark": "train_step",
        "against": against,
        "rounds": rounds,
        "facts": facts,
        "loss": losses["minigrad"],
        "ours_forward_ms": 1e3 * median(forwards["minigrad"]),
    }
    peer = steps.get(against), peaks.get(against)
    record |= figures(workload, steps["minigrad"], peer[0], peaks["minigrad"], peer[1])
    if against != "none":
        record["peer_forward_ms"] = 1e3 * median(forwards[against])
        record["forward_ratio"] = record["peer_forward_ms"] / record["ours_forward_ms"]
    return record


def show(record: dict[str, Any]) -> str:
    """The record as a table."""
    rows = [["", "step (ms)", "quartiles", "forward (ms)", "peak memory (MB)"]]
    for side, name in (("ours", "minigrad"), ("peer", record["against"])):
        if f"{side}_ms" in record:
            spread = record[f"{side}_spread_ms"]
            rows.append(
                [
                    name,
                    f"{record[f'{side}_ms']:.1f}",
                    f"{spread['q1']:.1f} to {spread['q3']:.1f}",
                    f"{record[f'{side}_forward_ms']:.1f}",
                    f"{record[f'{side}_mb']:.0f}",
                ]
            )
    if "ratio" in record:
        rows.append(
            [
                "peer / ours",
                f"{record['ratio']:.2f}x",
                "",
                f"{record['forward_ratio']:.2f}x",
                f"{1 / record['memory_ratio']:.2f}x",
            ]
        )
    sizes = WORKLOADS[record["workload"]]
    return f"{record['workload']}: {sizes}\n{record['facts']}\n{table(rows)}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workload", choices=sorted(WORKLOADS), default="seed")
    parser.add_argument("--against", choices=("torch", "jax", "none"), default="torch")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=0, help="0 for one a core")
    parser.add_argument("--micro-batch-size", type=int, default=0, help="0 lets minigrad choose")
    parser.add_argument("--json", help="file for the record")
    args = parser.parse_args(argv)
    require(args.against)
    record = run(args.workload, args.against, args.rounds, args.workers, args.micro_batch_size)
    print(show(record))
    write_json(args.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
