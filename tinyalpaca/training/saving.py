"""When a trainer saves, and what it says if it cannot."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from minigrad.parallel import Workers
from tinyalpaca.training.bad_steps import TrainingStopped
from tinyalpaca.training.run_folder import LATEST
from tinyalpaca.training.trainer_state import write_checkpoint

if TYPE_CHECKING:
    from tinyalpaca.trainer import Trainer


class Saver:
    """Saves a trainer's checkpoints.

    Attributes:
        step: the step that was saved last, or -1.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.step, self._at = -1, time.monotonic()

    @property
    def due(self) -> bool:
        """True if a checkpoint is wanted here, between two epochs' ends."""
        trainer, config = self.trainer, self.trainer.config
        if trainer.validation_is_due:
            return False
        minutes = (time.monotonic() - self._at) / 60
        every, limit = config.save_every, config.save_minutes
        return (every > 0 and trainer.step % every == 0) or (limit > 0 and minutes >= limit)

    def save(self, *, best: bool = False) -> Path:
        """Write a checkpoint of the present step.

        Raises:
            TrainingStopped: it could not be written; the last good one is as it was.
        """
        try:
            return self._write(best)
        except (OSError, MemoryError) as error:
            raise self._could_not_save(error) from error

    def save_at_stop(self) -> None:
        """Save where the loop ends before its time, unless that has been done."""
        if self.step != self.trainer.step:
            self.save()
        if self.trainer.best is None:
            self.trainer.run.publish(LATEST)

    def stopped_by(self, error: Exception) -> TrainingStopped:
        """The error that says what is safe, after the last step has been made so if that can be."""
        trainer = self.trainer
        if not self.is_whole:
            return self._could_not_save(error)
        if trainer.step != self.step:
            try:
                self._write(self._has_a_new_best)
            except (OSError, MemoryError) as second:
                return self._could_not_save(second)
        return TrainingStopped(
            f"{_told(error)}\nThe weights of step {trainer.step} are in {trainer.run.latest()}. "
            "--resume goes on from there."
        )

    @property
    def is_whole(self) -> bool:
        """Whether the trainer has exactly the step that it counts.

        Not so in the middle of an update, nor on a GPU, which may be some steps ahead. Nor has it
        any step before the folder has been made its own.
        """
        trainer = self.trainer
        ready = trainer.metrics is not None and not trainer.torn
        return ready and isinstance(trainer.engine, Workers)

    @property
    def _has_a_new_best(self) -> bool:
        best = self.trainer.best
        return best is not None and self.trainer.records[best["record"]]["step"] > self.step

    def _write(self, best: bool) -> Path:
        trainer = self.trainer
        if trainer.metrics is not None:
            trainer.metrics.sync()
        name, write = trainer.run.name_for(trainer.step), partial(write_checkpoint, trainer)
        path = trainer.run.add(name, write, best=best, keep=trainer.config.keep)
        self.step, self._at = trainer.step, time.monotonic()
        return path

    def _could_not_save(self, error: Exception) -> TrainingStopped:
        latest = self.trainer.run.latest()
        good = (
            f"The last good checkpoint is {latest}. --resume goes on from there."
            if latest
            else "Nothing has been saved yet."
        )
        disk = isinstance(error, OSError)
        what = f"step {self.trainer.step} could not be saved: " if disk else ""
        return TrainingStopped(f"{what}{_told(error)}\n{good}")


def _told(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return (
            f"out of memory: {str(error) or 'no more is to be had'}. Fewer --workers need less; "
            "so does a new run with a smaller --batch-size, --micro-batch-size or model."
        )
    return str(error)
