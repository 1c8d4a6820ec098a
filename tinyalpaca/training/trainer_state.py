"""From a trainer to a checkpoint and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minigrad.device import CPU
from minigrad.parallel import Workers
from minigrad.storage import FileFormatError
from tinyalpaca.checkpoint import write_model
from tinyalpaca.training.metrics import METRICS, read_metrics, steps_in
from tinyalpaca.training.training_checkpoint import (
    TRAINER,
    SavedRun,
    optimizer_from_files,
    optimizer_to_files,
    write_training,
)

if TYPE_CHECKING:
    from tinyalpaca.trainer import Trainer


def write_checkpoint(trainer: Trainer, folder: Path) -> None:
    """All files of a checkpoint of the trainer's present step, into an existing folder."""
    arrays, optimizer = optimizer_to_files(trainer.optimizer.state_dict(), trainer.names)
    if trainer.average is not None:
        arrays |= {
            f"weights/{name}": CPU.asarray(p.array) for name, p in trainer.named_parameters()
        }
    progress = {
        "step": trainer.step,
        "epoch": trainer.sampler.epoch,
        "sampler": trainer.sampler.state_dict(),
        "schedule": trainer.schedule.state_dict(),
        "random": trainer.model.rng.state_dict(),
        "optimizer": optimizer,
        "records": trainer.records,
        "best": trainer.best,
        "loss": {
            "sum": trainer.loss_sum,
            "count": trainer.loss_count,
            "grad_norm": trainer.grad_norm,
            "skipped": trainer.skipped,
            "bad_in_a_row": trainer.bad_in_a_row,
        },
        "data": trainer.data_fingerprint,
        "micro_batch_size": getattr(trainer.engine, "micro_batch_size", None),
    }
    write_training(folder, arrays, progress)
    with trainer.weights_for_use():
        write_model(folder, trainer.model, trainer.tokenizer, trainer.config)


def restore(trainer: Trainer, saved: SavedRun) -> None:
    """Make a new trainer go on where a checkpoint was written.

    Raises:
        ValueError: it belongs to other data or another model.
        FileFormatError: its files hold something else than the state of a training.
    """
    if saved.state.progress.get("data") != trainer.data_fingerprint:
        raise ValueError(
            f"{saved.folder} was trained on another text than {trainer.config.data!r} is now: "
            "to resume, give the same text as --data"
        )
    try:
        _restore(trainer, saved)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(
            saved.folder / TRAINER, f"not the state of this training ({error!r})"
        ) from error


def _restore(trainer: Trainer, saved: SavedRun) -> None:
    progress = saved.state.progress
    trainer.model.load_state_dict(saved.state.model)
    if trainer.average is not None:
        trainer.average.average[...] = trainer.engine.flat.array
        for name, parameter in trainer.named_parameters():
            parameter.assign(saved.state.arrays[f"weights/{name}"])
    state = optimizer_from_files(saved.state.arrays, progress["optimizer"], trainer.names)
    trainer.optimizer.load_state_dict(state)
    trainer.schedule.load_state_dict(progress["schedule"])
    trainer.sampler.load_state_dict(progress["sampler"])
    trainer.model.rng.load_state_dict(progress["random"])
    if isinstance(trainer.engine, Workers) and progress["micro_batch_size"]:
        # Another size would add up the same gradients in another order.
        trainer.engine.micro_batch_size = progress["micro_batch_size"]
    trainer.home = saved.folder.parent.parent.resolve()
    trainer.step = trainer.saver.step = progress["step"]
    trainer.best, trainer.records = progress["best"], progress["records"]
    if trainer.best is not None:  # looked up now, while an error can name the file
        _ = trainer.records[trainer.best["record"]]["step"], trainer.best["val_loss"]
    loss = progress["loss"]
    trainer.loss_sum, trainer.loss_count = loss["sum"], loss["count"]
    trainer.grad_norm = loss["grad_norm"]
    trainer.skipped, trainer.bad_in_a_row = loss["skipped"], loss["bad_in_a_row"]
    steps = steps_in(read_metrics(trainer.home / METRICS, trainer.warn), trainer.step)
    trainer.history = sorted([*steps, *trainer.records], key=lambda record: record["step"])
    trainer.step_losses = [(r["step"], r["loss"]) for r in steps]
