"""The whole command, start to finish: one epoch of the main job beside the original's own script.

    python -m tests.benchmarks.end_to_end --rounds 1 --json FILE

Both find the text, train their tokenizer, encode, train one epoch and validate, as whole processes
that take turns. Also measured: the time from starting Python to the first finished step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from minigrad.parallel import available_cores
from tests.benchmarks.contest import table, write_json

ROOT = Path(__file__).parents[2]
SMALL_STEP = """
import numpy as np
from minigrad import Generator, optim
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.trainer import make_engine
model = TinyAlpaca(ModelConfig(vocab_size=216), Generator(0))
optimizer = optim.AdamW(model.parameters(), lr=3e-4)
engine = make_engine(model, TrainConfig(), optimizer)
windows = np.random.default_rng(0).integers(0, 216, (32, 128))
engine.gradients((windows[:, :-1], windows[:, 1:]), scale=1 / (32 * 127))
engine.update(optimizer, 1.0)
engine.close()
"""


def seconds(command: list[str]) -> float:
    """Wall time of a whole process; raises if it fails."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - began


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", choices=("torch", "none"), default="torch")
    parser.add_argument("--json", help="file for the record")
    args = parser.parse_args()
    ours, theirs, starts = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        script = [sys.executable, "examples/train_shakespeare.py", "--epochs", "1"]
        for _ in range(args.rounds):
            ours.append(seconds([*script, "--out", folder]))
            if args.against == "torch":
                peer = [sys.executable, "-m", "tests.benchmarks.original_script"]
                theirs.append(seconds([*peer, "--threads", str(available_cores())]))
            starts += [seconds([sys.executable, "-c", SMALL_STEP]) for _ in range(3)]
    record: dict[str, Any] = {
        "benchmark": "end_to_end",
        "workload": "one epoch of the main job",
        "ours_ms": 1e3 * median(ours),
        "first_step_ms": 1e3 * median(starts),
    }
    rows = [["", "seconds"], ["minigrad, one epoch", f"{median(ours):.1f}"]]
    if theirs:
        record["peer_ms"] = 1e3 * median(theirs)
        record["ratio"] = record["peer_ms"] / record["ours_ms"]
        rows.append(["the original's script", f"{median(theirs):.1f}"])
        rows.append(["peer / ours", f"{record['ratio']:.2f}x"])
    rows.append(["minigrad, start to first step", f"{median(starts):.2f}"])
    print(table(rows))
    write_json(args.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
