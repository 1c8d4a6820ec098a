"""Times how fast the default model writes on a GPU, with one CUDA graph per token and without.

    python -m tests.benchmarks.generate_gpu --json generate_gpu.json

The same texts are drawn at temperature 0.7: alone, as a stream and in batches, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

from minigrad.device import cupy
from minigrad.errors import DeviceError
from tests.benchmarks.contest import table, write_json
from tests.benchmarks.generation_model import PROMPT_TEXT, TOKENIZER, make_model
from tinyalpaca.generation import Generator

WAYS = {"a graph": True, "kernel by kernel": False}


def seconds(generator: Generator, batch: int, tokens: int, stream: bool) -> float:
    """The seconds of one call."""
    began = time.perf_counter()
    if stream:
        for _ in generator.stream(PROMPT_TEXT, tokens, 0.7, seed=0):
            pass
    else:
        generator.generate([PROMPT_TEXT] * batch, tokens, 0.7, seed=0)
    return time.perf_counter() - began


def measure(batches: list[int], tokens: int, rounds: int) -> dict[str, Any]:
    """The medians of tokens per second for each way and workload."""
    model = make_model().to("gpu")
    generators = {name: Generator(model, TOKENIZER, graph=graph) for name, graph in WAYS.items()}
    workloads = [("a stream", 1, True), *((f"{n} texts", n, False) for n in batches)]
    rates: dict[str, dict[str, float]] = {}
    for workload, batch, stream in workloads:
        found: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(rounds + 1):  # the first round compiles and captures
            for name in WAYS:
                taken = seconds(generators[name], batch, tokens, stream)
                if number:
                    found[name].append(tokens * batch / taken)
        rates[workload] = {name: statistics.median(values) for name, values in found.items()}
    return {"tokens": tokens, "rounds": rounds, "tokens_per_s": rates}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256, 512], metavar="N")
    parser.add_argument("--tokens", type=int, default=100, metavar="N")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--json", metavar="FILE", help="write the record here")
    args = parser.parse_args(argv)
    try:
        cupy()
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    record = measure(args.batches, args.tokens, args.rounds)
    rows = [["tokens/s", *WAYS]]
    for workload, rates in record["tokens_per_s"].items():
        rows.append([workload, *(f"{rates[name]:,.0f}" for name in WAYS)])
    print(table(rows))
    write_json(args.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
