"""What happens when a loss or a gradient is NaN or infinite: find out where, keep the evidence."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import minigrad as mg
from minigrad.parallel import Engine
from minigrad.storage import own_folder, remove_link, save_safetensors, write_text_atomically
from tinyalpaca.evaluation import Part
from tinyalpaca.training.run_folder import LATEST
from tinyalpaca.training.training_parts import train_loss

if TYPE_CHECKING:
    from tinyalpaca.trainer import Trainer

FOLDER = "bad-steps"
MOST_IN_A_ROW = 10  # then it is not the batches


class TrainingStopped(RuntimeError):
    """Training cannot go on. The message says where and why; the last good weights are saved."""


def find_non_finite(
    engine: Engine, train_loss: Any, batches: list[tuple[Part, int]]
) -> dict[str, Any]:
    """Run a step again, micro-batch by micro-batch under `detect_nan`, with the same dropout.

    Args:
        train_loss: as the engine's.
        batches: each with the key that the engine got.

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


def handle_bad_step(trainer: Trainer, parts: list[Part], loss: float, grad_norm: float) -> None:
    """Find where a NaN or Inf comes from and keep the evidence; then stop, or go on without.

    Raises:
        TrainingStopped: unless bad steps shall be skipped, and for `MOST_IN_A_ROW` of them.
    """

    def same_loss(part: Part, key: int) -> mg.Tensor:
        return train_loss(trainer.model, trainer.config, part, key)

    number, first = trainer.step + 1, trainer.first_key
    batches = [(part, first + i) for i, part in enumerate(parts)]
    found = find_non_finite(trainer.engine, same_loss, batches)
    report = {"step": number, "loss": str(loss), "grad_norm": str(grad_norm), **found}
    texts = [trainer.tokenizer.decode(row.tolist()) for x, _ in parts for row in x]
    where = save_report(trainer.folder, report, parts, texts)
    what = f"step {number}: loss {loss}, gradient norm {grad_norm}. {found['message']}"
    if trainer.config.skip_bad_steps and trainer.bad_in_a_row + 1 < MOST_IN_A_ROW:
        trainer.skipped, trainer.bad_in_a_row = trainer.skipped + 1, trainer.bad_in_a_row + 1
        trainer.warn(f"left out {what} The batch is in {where}.")
        return
    advice = "Start again with a lower --learning-rate or a smaller --grad-clip"
    if not trainer.config.skip_bad_steps:
        advice += ", or go on with --resume and --skip-bad-steps"
    raise TrainingStopped(f"{what}\nThe batch is in {where}. {save_good(trainer)}\n{advice}.")


def save_good(trainer: Trainer) -> str:
    """Save the weights of the last step if they are good. Says where the last good ones are."""
    x, y = trainer.dataset.batch_at(np.arange(min(4, len(trainer.dataset))))
    finite = bool(isfinite(float(abs(trainer.engine.flat.array).sum())))
    if finite and isfinite(float(trainer.engine.evaluate((x, y)))):
        trainer.sampler.load_state_dict(trainer.sampler_before)  # the step has not happened
        trainer.saver.save_at_stop()
        return f"The weights of step {trainer.step} are in {trainer.run.latest()}."
    if trainer.best is None:
        trainer.run.publish(LATEST)
    return (
        f"The weights of step {trainer.step} are useless already; the last good ones are in "
        f"{trainer.run.latest()}."
    )
