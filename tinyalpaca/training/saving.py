"""When a trainer saves, and what it says if it cannot."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
        trainer = self.trainer
        try:
            if trainer.metrics is not None:
                trainer.metrics.sync()
            name, write = trainer.run.name_for(trainer.step), partial(write_checkpoint, trainer)
            path = trainer.run.add(name, write, best=best, keep=trainer.config.keep)
        except OSError as error:
            raise self.stopped_by(error) from error
        self.step, self._at = trainer.step, time.monotonic()
        return path

    def save_at_stop(self) -> None:
        """Save where the loop ends before its time, unless that has been done."""
        if self.step != self.trainer.step:
            self.save()
        if self.trainer.best is None:
            self.trainer.run.publish(LATEST)

    def stopped_by(self, error: Exception) -> TrainingStopped:
        """The error that says what is safe."""
        latest = self.trainer.run.latest()
        good = "Nothing has been saved yet."
        if latest is not None:
            good = f"The last good checkpoint is {latest}. --resume goes on from there."
        disk = isinstance(error, OSError)
        what = f"step {self.trainer.step} could not be saved: " if disk else ""
        return TrainingStopped(f"{what}{error}\n{good}")
