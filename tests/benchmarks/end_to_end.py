"""Times the whole command: one epoch of the main job, beside the original's own script.

    python -m tests.benchmarks.end_to_end --rounds 1 --json FILE

Both load the text, train their tokenizer, encode, train one epoch and validate. They run as whole
processes, in turns. Also measured: the time from starting Python to the first finished step.
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
from tests.benchmarks.contest import figures, require, table, write_json

ROOT = Path(__file__).parents[2]
SMALL_STEP = """
import numpy as np
from minigrad import Generator, optim
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.training.defaults import make_engine
model = TinyAlpaca(ModelConfig(vocab_size=216), Generator(0))
optimizer = optim.AdamW(model.parameters(), lr=3e-4)
engine = make_engine(model, TrainConfig(), optimizer)
windows = np.random.default_rng(0).integers(0, 216, (32, 128))
engine.gradients((windows[:, :-1], windows[:, 1:]), scale=1 / (32 * 127))
engine.update(optimizer, 1.0)
engine.close()
"""


def whole_process(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory in MB of a process with its children; raises if it fails."""
    from tests.benchmarks.memory_watch import MemoryWatch  # needs psutil

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        with MemoryWatch(process.pid, interval=0.1) as memory:
            code = process.wait()
        took = time.perf_counter() - began
        if code:
            output.seek(0)
            raise SystemExit(f"{command} failed:\n{output.read()}")
    return took, memory.peak_mb


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", choices=("torch", "none"), default="torch")
    parser.add_argument("--json", help="file for the record")
    args = parser.parse_args(argv)
    require(args.against)
    ours, theirs, starts = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        script = [sys.executable, "examples/train_shakespeare.py", "--epochs", "1"]
        for _ in range(args.rounds):
            ours.append(whole_process([*script, "--out", folder]))
            if args.against == "torch":
                peer = [sys.executable, "-m", "tests.benchmarks.original_script"]
                theirs.append(whole_process([*peer, "--threads", str(available_cores())]))
            starts += [whole_process([sys.executable, "-c", SMALL_STEP])[0] for _ in range(3)]
    record: dict[str, Any] = {
        "benchmark": "end_to_end",
        "against": args.against,
        "first_step_ms": 1e3 * median(starts),
    }
    times, peaks = zip(*ours, strict=True)
    peer_times, peer_peaks = zip(*theirs, strict=True) if theirs else (None, None)
    record |= figures(
        "one epoch of the main job",
        list(times),
        peer_times and list(peer_times),
        max(peaks),
        peer_peaks and max(peer_peaks),
    )
    rows = [["", "seconds", "peak memory (MB)"]]
    sides = [("minigrad, one epoch", "ours"), ("the original's script", "peer")]
    for name, side in sides[: 1 + bool(theirs)]:
        ms, mb = record[f"{side}_ms"], record[f"{side}_mb"]
        rows.append([name, f"{ms / 1e3:.1f}", f"{mb:.0f}"])
    if theirs:
        rows.append(
            ["peer / ours", f"{record['ratio']:.2f}x", f"{1 / record['memory_ratio']:.2f}x"]
        )
    rows.append(["minigrad, start to first step", f"{median(starts):.2f}", ""])
    print(table(rows))
    write_json(args.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
