"""Whole trainings on the GPU, compared with each other and with the CPU."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.errors import CaptureWarning, KernelFallbackWarning
from minigrad.kernels.cuda.gemm import library
from minigrad.parallel.capture import Captured
from tests.gpu.proving.processes import Clock, Save
from tests.tinyalpaca.runs import MODEL, TRAINING, final_weights
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.training.gpu_steps import GpuSteps
from tinyalpaca.training.job import run_training

# Tolerances for rounded matmuls over 200 steps, relative to the first loss.
CURVES = {"tf32": 0.01, "bf16": 0.03}
ON_CPU = 1e-3  # relative, over 20 steps: the CPU sums in another order
LONG, SHORT, CPU_STEPS = 200, 50, 20


def write_text(folder: Path, words: int) -> Path:
    """Write a text that has something to learn in it."""
    rng = np.random.default_rng(7)
    choice = np.array(["the ", "king ", "and ", "queen ", "speak ", "no ", "more,\n", "thou "])
    path = folder / "text.txt"
    path.write_text("".join(choice[rng.integers(0, len(choice), words)]), encoding="utf-8")
    return path


class Trainings:
    """Trainings on the same text with the same seed."""

    def __init__(self, folder: Path, toy: bool) -> None:
        self.folder, self.toy = folder, toy
        self.text = write_text(folder, 300 if toy else 60_000)
        self.model: dict[str, Any] = dict(MODEL) if toy else {}
        self.number = 0

    def run(self, steps: int, **changes: Any) -> dict[str, Any]:
        """Train; returns the losses, the weights, the number of graphs, and the warnings."""
        self.number += 1
        out = self.folder / f"run-{self.number}"
        own: dict[str, Any] = (
            {"batch_size": 4, "seq_len": 17} if self.toy else {"batch_size": 32, "seq_len": 128}
        )
        settings: dict[str, Any] = {**TRAINING, "data": str(self.text), "out": str(out), **own}
        settings |= {"device": "gpu", "precision": "fp32", "log_every": 5, "epochs": 1000}
        settings |= {"learning_rate": 1e-3, "max_steps": steps, **changes}
        with (
            warnings.catch_warnings(record=True) as found,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("always")
            run = run_training(ModelConfig(**self.model), TrainConfig(**settings))
        return {
            "losses": [loss for _, loss in run.metrics.losses],
            "weights": final_weights(out),
            "graphs": graphs_of(run),
            "why not": told(found),
        }


def graphs_of(run: Any) -> int:
    """The number of step shapes that were captured as graphs."""
    return run.steps.launched.graphs if isinstance(run.steps, GpuSteps) else 0


def told(found: list[warnings.WarningMessage]) -> list[str]:
    """The warnings that something else runs instead of a graph, a kernel or a library."""
    announced = (CaptureWarning, KernelFallbackWarning)
    return sorted({str(w.message) for w in found if issubclass(w.category, announced)})


def same_bits(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether losses and weights are bitwise identical."""
    equal = all(np.array_equal(w, b["weights"][name]) for name, w in a["weights"].items())
    return a["losses"] == b["losses"] and equal


def largest_difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    """The largest difference of two loss curves, relative to the first loss."""
    ours, theirs = np.array(a["losses"]), np.array(b["losses"])
    return float(np.abs(ours - theirs).max() / abs(theirs[0]))


def checks(trainings: Trainings) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the result of each check; the most important ones come first."""
    short, long, on_cpu = (6, 8, 4) if trainings.toy else (SHORT, LONG, CPU_STEPS)
    graph = trainings.run(short)
    facts = {"steps": short, "graphs": graph["graphs"], "why not": graph["why not"]}
    yield "captured", {"ok": graph["graphs"] > 0, **facts}
    eager = trainings.run(short, graph=False)
    difference = largest_difference(graph, eager)
    facts = {"steps": short, "first loss": graph["losses"][0], "last loss": graph["losses"][-1]}
    facts |= {"largest difference": difference}
    yield "eager = graph", {"ok": same_bits(graph, eager), **facts}
    again = trainings.run(short)
    yield "twice the same", {"ok": same_bits(graph, again), "steps": short}
    for name in ("own", "cublaslt"):
        with library(name):
            other = trainings.run(short)
        difference = largest_difference(other, graph)
        facts = {"steps": short, "largest difference": difference, "graphs": other["graphs"]}
        facts |= {"why not": other["why not"]}
        yield f"products by {name}", {"ok": difference < ON_CPU, **facts}
    cpu = trainings.run(on_cpu, device="cpu")
    ours = {**graph, "losses": graph["losses"][:on_cpu]}
    difference = largest_difference(ours, cpu)
    yield (
        "GPU = CPU",
        {"ok": difference < ON_CPU, "steps": on_cpu, "largest difference": difference},
    )
    yield "what cannot be captured", what_cannot_be_captured()
    exact = trainings.run(long)
    for name, bound in CURVES.items():
        rounded = trainings.run(long, precision=name)
        difference = largest_difference(rounded, exact)
        facts = {"steps": long, "largest difference": difference, "graphs": rounded["graphs"]}
        yield f"{name} = fp32", {"ok": 0 < difference < bound, **facts}


def what_cannot_be_captured() -> dict[str, Any]:
    """A function that reads a value back cannot be captured: it warns, and runs uncaptured."""
    total = cupy().zeros(3)

    def look() -> None:
        nonlocal total
        total += 1
        float(total.sum())

    captured = Captured(look, [total], label="sum", warm_up=1)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        for _ in range(4):
            captured()
    right = total.get().tolist() == [4, 4, 4]
    return {"ok": right and captured.graph is None, "why not": captured.why_not}


def prove(save: Save, clock: Clock) -> dict[str, Any]:
    """Run this section of the proof."""
    result: dict[str, Any] = {"checks": {}}
    for name, found in checks(Trainings(clock.folder, clock.toy)):
        result["checks"][name] = found
        save(result)
    return result
