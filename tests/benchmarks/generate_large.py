"""Times how fast models of real sizes write, beside `transformers` with PyTorch and a static cache.

    python -m tests.benchmarks.generate_large --workload gpt2 --json gpt2.json

Both sides load the same folder in Hugging Face's format, with random weights of the shape of GPT-2
or SmolLM-135M. They run in separate processes, in turns. Greedy texts are compared first. A text
after 64 tokens and the first token after 512 are timed. PyTorch runs uncompiled and compiled, with
all cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from minigrad.parallel import available_cores
from tests.benchmarks.contest import Contender, Contest, figures, require, table, write_json
from tests.benchmarks.huge_models import CONFIGS, LONG, PROMPT, write_folder

HOME = "tests.benchmarks.huge_models"


def measure(
    folder: Path, workload: str, against: str, modes: list[str], rounds: int, tokens: int
) -> dict[str, Any]:
    """The record of a run.

    Raises:
        RuntimeError: the greedy texts differ.
    """
    sizes = {"folder": str(folder), "tokens": tokens}
    entered = [Contender("ours", f"{HOME}:Ours", sizes)]
    for mode in modes if against == "torch" else ():
        options = {"compiled": mode == "compiled", "threads": available_cores(), **sizes}
        entered.append(Contender(f"torch {mode}", f"{HOME}:Peer", options))
    with Contest(entered) as contest:
        texts = {contender.name: contest.call(contender.name, "greedy") for contender in entered}
        if any(text != texts["ours"] for text in texts.values()):
            raise RuntimeError(f"the greedy texts differ: {texts}")
        times = {method: contest.times(method, rounds, 1) for method in ("one", "first")}
        peaks = contest.peak_mb("first", 1)
    found = {
        name: {
            "tokens_per_s": tokens / statistics.median(times["one"][name]),
            "first_token_s": statistics.median(times["first"][name]),
            "mb": peaks[name],
        }
        for name in texts
    }
    best = max([*texts][1:], key=lambda name: found[name]["tokens_per_s"], default="none")
    about = f"{workload}, {PROMPT}-token prompt, {tokens} new tokens, greedy"
    peer = times["one"].get(best), peaks.get(best)
    record = {
        "benchmark": "generate_large",
        "against": against,
        **figures(about, times["one"]["ours"], peer[0], peaks["ours"], peer[1]),
        "contenders": found,
    }
    if best in found:
        first = min(found[name]["first_token_s"] for name in [*texts][1:])
        record |= {"peer": best, "first_token_ratio": first / found["ours"]["first_token_s"]}
    return record


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", choices=tuple(CONFIGS), default="gpt2")
    parser.add_argument("--against", choices=("torch", "none"), default="torch")
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=["eager"])
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--tokens", type=int, default=32, metavar="N")
    parser.add_argument("--json", metavar="FILE", help="write the record here")
    args = parser.parse_args(argv)
    require(args.against)
    with tempfile.TemporaryDirectory() as place:
        write_folder(Path(place), args.workload)
        record = measure(
            Path(place), args.workload, args.against, args.modes, args.rounds, args.tokens
        )
    rows = [["", "tokens/s", f"first token after {LONG}, s", "MB"]]
    for name, f in record["contenders"].items():
        rates = f"{f['tokens_per_s']:.1f}", f"{f['first_token_s']:.2f}", f"{f['mb']:.0f}"
        rows.append([name, *rates])
    print(record["workload"])
    print(table(rows))
    if "peer" in record:
        print(f"ours / {record['peer']}: {record['ratio']:.2f} in tokens/s")
        print(f"memory: {record['memory_ratio']:.2f} of it")
        print(f"first token, the quickest of them / ours: {record['first_token_ratio']:.2f}")
    write_json(args.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
