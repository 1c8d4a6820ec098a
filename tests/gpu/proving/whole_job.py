"""Times what a user waits for: the first step of a process, text, and the main job as a whole.

"Cold" means an empty cache of compiled kernels, "warm" the cache that an earlier run has filled.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.generation_model import PROMPT_TEXT, TOKENIZER, make_model
from tests.benchmarks.workloads import WORKLOADS
from tests.gpu.proving.equality import write_text
from tests.gpu.proving.processes import ROOT, Clock, Save, environment
from tests.gpu.proving.timing import TOY
from tinyalpaca.generation import Generator

EPOCHS, TOKENS, BATCH, REPEATS = 10, 100, 64, 5


def prove(save: Save, clock: Clock) -> dict[str, Any]:
    """Run this section. If a part fails, its error is recorded and the next part runs."""
    result: dict[str, Any] = {}
    for name, part in (("main job", main_job), ("first step", first_step), ("text", text)):
        try:
            result[name] = part(clock)
        except Exception as error:
            result[name] = {"error": f"{type(error).__name__}: {error}"[-1500:]}
        save(result)
    return result


def caches(folder: Path) -> dict[str, str]:
    """Environment variables that put CuPy's and CUDA's caches into `folder`."""
    return {"CUPY_CACHE_DIR": str(folder / "cupy"), "CUDA_CACHE_PATH": str(folder / "cuda")}


def wall(command: Sequence[str], variables: dict[str, str], seconds: float) -> tuple[float, str]:
    """Run a process; returns its seconds and its output.

    Raises:
        RuntimeError: the process failed.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=max(1.0, seconds),
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-1200:]}")
    return time.perf_counter() - began, done.stdout


def main_job(clock: Clock) -> dict[str, Any]:
    """Run `examples/train_shakespeare.py --device gpu`: ten epochs with validation."""
    variables = caches(clock.folder / "cache-of-the-job")
    found: list[dict[str, Any]] = []
    command = ["examples/train_shakespeare.py", "--device", "gpu", "--epochs", str(EPOCHS)]
    if clock.toy:
        small = {"data": write_text(clock.folder, 300), "max-steps": 2, "batch-size": 2}
        small |= {"seq-len": 8, "num-merges": 5, "sample-tokens": 0, "epoch-sample-tokens": 0}
        small |= {"num-layers": 1, "d-model": 8, "num-heads": 2, "d-ff": 8}
        command += [f"--{name}={value}" for name, value in small.items()]
        command.append("--no-preflight")
    for number in range(2 if clock.toy else 3):
        out = clock.folder / f"job-{number}"
        seconds, output = wall([*command, "--out", str(out)], variables, clock.left)
        best = re.search(r"Best validation: ([0-9.]+)", output)
        found.append(
            {
                "wall": seconds,
                "epochs": epoch_seconds(out / "metrics.jsonl"),
                "best validation": float(best[1]) if best else None,
            }
        )
    warm = min(found[1:], key=lambda run: run["wall"])
    return {"epochs": EPOCHS, "cold": found[0], "warm": warm}


def epoch_seconds(metrics: Path) -> float | None:
    """The seconds of all epochs with their validation, from the run's metrics."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    seconds = [line["seconds"] for line in lines if line.get("kind") == "epoch"]
    return sum(seconds) if seconds else None


def first_step(clock: Clock) -> dict[str, float]:
    """Seconds from the start of Python to the first finished step of the default model."""
    sizes = TOY["toy"] if clock.toy else WORKLOADS["seed"]
    command = ["-m", "tests.gpu.proving.first_step", json.dumps(list(sizes))]
    variables = caches(clock.folder / "cache-of-the-step")
    cold, _ = wall(command, variables, clock.left)
    warm = [wall(command, variables, clock.left)[0] for _ in range(1 if clock.toy else 3)]
    return {"cold": cold, "warm": median(warm)}


def text(clock: Clock) -> dict[str, Any]:
    """Tokens per second, for one text and for a batch, after a prompt of ten tokens."""
    model = make_model()
    model.to("gpu")
    generator = Generator(model, TOKENIZER)
    tokens = 3 if clock.toy else TOKENS
    result: dict[str, dict[str, float]] = {}
    for batch in (1, 2 if clock.toy else BATCH):
        prompts = [PROMPT_TEXT] * batch
        began = time.perf_counter()
        generator.generate(prompts, tokens, 0.7, seed=0)
        first, seconds = time.perf_counter() - began, []
        for seed in range(1 if clock.toy else REPEATS):
            began = time.perf_counter()
            generator.generate(prompts, tokens, 0.7, seed=seed)
            seconds.append(time.perf_counter() - began)
        result[str(batch)] = {
            "tokens a second": batch * tokens / median(seconds),
            "first seconds": first,
        }
    return {"new tokens": tokens, "of batches": result}
