"""When a loss or a gradient is NaN or infinite: find where it began, and save the evidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.parallel import Engine
from minigrad.storage import own_folder, remove_link, save_safetensors, write_text_atomically
from tinyalpaca.console import Say
from tinyalpaca.runs.layout import LATEST
from tinyalpaca.training.hooks.checkpoints import Checkpoints
from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.state import Part, Result, TrainingState
from tinyalpaca.training.stopping import TrainingStopped

FOLDER = "bad-steps"
MOST_IN_A_ROW = 10  # then it is not the batches


class BadSteps(Hook):
    """Saves the evidence of a bad step, then stops the run or skips the step.

    Args:
        engine, train_loss: what computed the step, to find where it began.
        weights_are_good: whether the weights before it can be used.
        checkpoints: saves them, if they can.
        decode: turns ids into text.
        skip: skip such steps, unless there are `MOST_IN_A_ROW` of them.
        warn: called with a message about each skipped step.
    """

    train_loss: Callable[[Part, int], mg.Tensor]
    decode: Callable[[list[int]], str]
    weights_are_good: Callable[[], bool]
    warn: Say
    engine: Engine
    checkpoints: Checkpoints
    skip: bool

    def __init__(
        self,
        engine: Engine,
        train_loss: Callable[[Part, int], mg.Tensor],
        weights_are_good: Callable[[], bool],
        checkpoints: Checkpoints,
        decode: Callable[[list[int]], str],
        skip: bool,
        warn: Say,
    ) -> None:
        self.engine, self.train_loss, self.decode = engine, train_loss, decode
        self.weights_are_good, self.checkpoints = weights_are_good, checkpoints
        self.skip, self.warn = skip, warn

    def on_bad_step(self, state: TrainingState, result: Result) -> bool:
        """Find where a NaN or Inf comes from and save the evidence; then stop, or skip the step.

        Raises:
            TrainingStopped: unless bad steps shall be skipped, and for `MOST_IN_A_ROW` of them.
        """
        assert result.batches is not None
        parts, first = result.batches
        batches = [(part, first + number) for number, part in enumerate(parts)]
        found = find_non_finite(self.engine, self.train_loss, batches)
        number, loss, norm = state.step + 1, result.loss, result.grad_norm
        report = {"step": number, "loss": str(loss), "grad_norm": str(norm), **found}
        texts = [self.decode(row.tolist()) for x, _ in parts for row in x]
        where = save_report(self.checkpoints.run.path, report, parts, texts)
        what = f"step {number}: loss {loss}, gradient norm {norm}. {found['message']}"
        if self.skip and state.bad_in_a_row + 1 < MOST_IN_A_ROW:
            self.warn(f"left out {what} The batch is in {where}.")
            return True
        advice = "Start again with a lower --learning-rate or a smaller --grad-clip"
        if not self.skip:
            advice += ", or resume with --resume and --skip-bad-steps"
        raise TrainingStopped(
            f"{what}\nThe batch is in {where}. {self._save_good(state)}\n{advice}."
        )

    def _save_good(self, state: TrainingState) -> str:
        """Save the weights of the last step if they are good. Says where the last good ones are."""
        run = self.checkpoints.run
        if self.weights_are_good():
            self.checkpoints.save_at_stop(state)
            return f"The weights of step {state.step} are in {run.latest()}."
        if state.best is None:
            run.publish(LATEST)
        return (
            f"The weights of step {state.step} are useless already; the last good ones are in "
            f"{run.latest()}."
        )


def find_non_finite(
    engine: Engine, train_loss: Callable[[Part, int], mg.Tensor], batches: list[tuple[Part, int]]
) -> dict[str, Any]:
    """Run a step again, micro-batch by micro-batch under `detect_nan`, with the same dropout.

    Args:
        train_loss: as the engine's.
        batches: each with its key of the engine.

    Returns:
        "message" and, if it was found, "op", "phase", "module", and "batch" and "rows" of the
        micro-batch.
    """
    for number, (arrays, key) in enumerate(batches):
        start = 0
        for part, micro_key in engine.micro_batches(arrays, key):
            rows = [start, start + len(part[0])]
            try:
                with mg.detect_nan():
                    loss = train_loss(part, micro_key)
                    mg.grad(loss, engine.flat.parameters, allow_unused=True)
            except mg.NonFiniteError as error:
                found = {"op": error.op, "phase": error.phase, "module": error.module}
                return {"message": str(error), **found, "batch": number, "rows": rows}
            start = rows[1]
    return {"message": "A second pass over the step gave finite numbers everywhere."}


def save_report(
    folder: Path, report: dict[str, Any], batches: list[Part], texts: list[str]
) -> Path:
    """Write `report.json` and `batch.safetensors` into a folder of the step's; returns it."""
    path = own_folder(folder, FOLDER, f"step-{report['step']:08d}")
    arrays: dict[str, np.ndarray] = {}
    for number, (x, y) in enumerate(batches):
        arrays |= {f"{number}/x": np.asarray(x), f"{number}/y": np.asarray(y)}
    remove_link(path / "batch.safetensors")
    save_safetensors(arrays, path / "batch.safetensors")
    text = json.dumps({**report, "texts": texts}, indent=1, ensure_ascii=False)
    write_text_atomically(path / "report.json", text + "\n", follow_links=False)
    return path
