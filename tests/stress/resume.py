"""Kills a training with SIGKILL at random moments, resumes, and compares with an undisturbed run.

    python -m tests.stress.resume --kills 30

The run saves a checkpoint at every step, so that about half of the kills happen during a save.
After each, `latest` and `best` must name checkpoints without a wrong byte. A run that has ended
must have losses and weights that are bitwise identical to those of the undisturbed run. Needs fork
and SIGKILL.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.tinyalpaca.runs import assert_same_weights, resume, train, write_text
from tinyalpaca.runs import RunFolder, load_model
from tinyalpaca.runs.checksums import check_sums
from tinyalpaca.runs.layout import REQUIRED
from tinyalpaca.training.hooks import curve
from tinyalpaca.training.metrics_file import read_metrics

SETTINGS = {"save_every": 1, "optimizer": "muon", "windows": "random", "ema": 0.9}


def start(folder: Path, text: Path, workers: int) -> int:
    """Start a child process that trains, or resumes, to the end; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            sys.stdout = nothing
            if RunFolder(folder).all():
                resume(folder, workers=workers)
            else:
                train(folder, text, workers=workers, **SETTINGS)
        status = 0
    finally:
        os._exit(status)


def check(folder: Path) -> None:
    """Check what must hold at every moment after the first checkpoint."""
    run = RunFolder(folder)
    if not run.all():
        return
    for path in (run.latest(), run.best()):
        if path is not None:
            check_sums(path, REQUIRED)
            load_model(path)
    newest = run.newest_good(lambda line: sys.exit(f"damaged: {line}"))
    assert newest == run.latest() or run.latest() is None, (newest, run.latest())


def losses(folder: Path) -> list[tuple]:
    """The losses of every step and epoch in metrics.jsonl, each once."""
    records = read_metrics(folder / "metrics.jsonl")
    return [(r["kind"], r["step"], r.get("loss"), r.get("val_loss")) for r in records]


def stress(kills: int, seed: int, workers: int, folder: Path) -> str:
    """Run the test; returns a sentence about it. Raises AssertionError at the first fault."""
    curve.plots_available = lambda: False  # type: ignore[assignment]
    rng = np.random.default_rng(seed)
    text = write_text(folder)
    train(folder / "peace", text, **SETTINGS)
    began = time.monotonic()
    os.waitpid(start(folder / "measured", text, workers), 0)
    length = time.monotonic() - began
    killed, finished, in_save = 0, 0, 0
    while killed < kills or not finished:
        run = folder / f"war-{finished}"
        pid = start(run, text, workers)
        time.sleep(float(rng.uniform(0, length)) if killed < kills else 0)
        if killed < kills:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            in_save += any((run / "checkpoints").glob(".*.tmp"))
            check(run)
            continue
        assert os.WEXITSTATUS(status) == 0, f"the run ended with status {status}"
        assert_same_weights(run, folder / "peace")
        assert losses(run) == losses(folder / "peace")
        finished += 1
    return f"{killed} kills ({in_save} within a save), {finished} run(s) finished, all the same"


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(stress(args.kills, args.seed, args.workers, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
