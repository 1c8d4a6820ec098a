"""Times how fast the default model writes, beside PyTorch with a cache of keys and values.

    python -m tests.benchmarks.generate --json generate.json

It writes one text of a 10-token prompt and 100 new tokens, and a batch of such texts, at
temperature 0.7. Both sides have the same weights and run in separate processes, in turns. Their
greedy texts are compared first. PyTorch runs in each of its modes (see `torch_generate_peer`), with
one thread and with all cores; the fastest one for each workload is the peer. Ours is
`Generator.generate` and `.stream`, with encoding and decoding.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from minigrad.parallel import available_cores
from tests.benchmarks.contest import Contender, Contest, figures, require, table, write_json

MODULE = "tests.benchmarks"
MODES = ["eager", "compiled"]


def contenders(against: str, modes: list[str], batch: int, tokens: int) -> list[Contender]:
    """minigrad's contender, and PyTorch's modes."""
    sizes = {"batch": batch, "tokens": tokens}
    result = [Contender("ours", f"{MODULE}.generation_model:Ours", sizes)]
    if against == "torch":
        for mode in modes:
            for threads in sorted({1, available_cores()}):
                options = {"mode": mode, "threads": threads, **sizes}
                name = f"torch {mode}, {threads} thread{'s' * (threads > 1)}"
                factory = f"{MODULE}.torch_generate_peer:Peer"
                result.append(Contender(name, factory, options))
    return result


def measure(against: str, modes: list[str], rounds: int, batch: int, tokens: int) -> dict[str, Any]:
    """The record of a run.

    Raises:
        RuntimeError: the greedy texts differ.
    """
    speeds: dict[str, dict[str, float]] = {}
    quartiles: dict[str, dict[str, list[float]]] = {}
    entered = contenders(against, modes, batch, tokens)
    with Contest(entered) as contest:
        names = [contender.name for contender in entered]
        expected = contest.call("ours", "greedy")
        for name in names[1:]:
            if contest.call(name, "greedy") != expected:
                raise RuntimeError(f"the greedy text of {name!r} differs from ours")
        facts = {name: contest.call(name, "facts") for name in names}
        times = {method: contest.times(method, rounds) for method in ("one", "many")}
        peaks = contest.peak_mb("many")
        for method, texts in (("one", 1), ("many", batch)):
            for name, seconds in times[method].items():
                rates = [tokens * texts / s for s in seconds]
                speeds.setdefault(name, {})[method] = statistics.median(rates)
                quartiles.setdefault(name, {})[method] = statistics.quantiles(rates, n=4)
    best = {
        method: max(names[1:], key=lambda name: speeds[name][method], default="none")
        for method in ("one", "many")
    }
    workload = f"default model, 10-token prompt, {tokens} new tokens, temperature 0.7"
    peer = times["one"].get(best["one"]), peaks.get(best["one"])
    record: dict[str, Any] = {
        "benchmark": "generate",
        "against": against,
        **figures(workload, times["one"]["ours"], peer[0], peaks["ours"], peer[1]),
        "batch": batch,
        "ours_tokens_per_s": speeds["ours"]["one"],
        "ours_batch_tokens_per_s": speeds["ours"]["many"],
        "batch_scaling": speeds["ours"]["many"] / speeds["ours"]["one"],
        "facts": facts,
        "tokens_per_s": speeds,
        "quartiles": quartiles,
    }
    if against == "torch":
        for method, prefix in (("one", ""), ("many", "batch_")):
            record[f"{prefix}peer"] = best[method]
            record[f"peer_{prefix}tokens_per_s"] = speeds[best[method]][method]
        record["batch_ratio"] = speeds["ours"]["many"] / speeds[best["many"]]["many"]
    return record


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", choices=("torch", "none"), default="torch")
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=MODES, help="PyTorch's (default: both)"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--batch", type=int, default=64, metavar="N")
    parser.add_argument("--tokens", type=int, default=100, metavar="N", help="at most 117")
    parser.add_argument("--json", metavar="FILE", help="write the record here")
    args = parser.parse_args(argv)
    require(args.against)
    record = measure(args.against, args.modes, args.rounds, args.batch, args.tokens)
    rows = [["tokens/s", "one text", "quartiles", f"batch of {args.batch}", "quartiles"]]
    for name, speed in record["tokens_per_s"].items():
        row = [name]
        for method in ("one", "many"):
            low, _, high = record["quartiles"][name][method]
            row += [f"{speed[method]:,.0f}", f"{low:,.0f} to {high:,.0f}"]
        rows.append(row)
    print(record["workload"])
    print(table(rows))
    print(f"batch of {args.batch} / one text: {record['batch_scaling']:.2f}")
    if args.against == "torch":
        print(f"ours / {record['peer']}: {record['ratio']:.2f}")
        print(f"ours / {record['batch_peer']}, in batches: {record['batch_ratio']:.2f}")
    write_json(args.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
