"""`loss.png`: the picture of a run, drawn anew as it goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tinyalpaca.console import Say
from tinyalpaca.plots import plots_available, save_loss_curve
from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.hooks.metrics import Metrics
from tinyalpaca.training.state import Record, TrainingState

LOSS_CURVE = "loss.png"
CURVE_EVERY = 5.0  # seconds; a picture takes a third of one, which is longer than an epoch on a GPU


class LossCurve(Hook):
    """Draws the losses of all steps and validations, if matplotlib is installed.

    Args:
        folder: of the run.
        metrics: comes before this hook and has the losses.
        warn: told if there can be no picture.
    """

    def __init__(self, folder: Path, metrics: Metrics, warn: Say) -> None:
        self.path, self.metrics, self.warn = folder / LOSS_CURVE, metrics, warn
        self._drawn = time.monotonic()

    def on_epoch(self, state: TrainingState, record: Record) -> None:
        if time.monotonic() - self._drawn >= CURVE_EVERY:
            self.draw(state)

    def on_stop(self, state: TrainingState, reason: str | None) -> None:
        self.draw(state)

    def draw(self, state: TrainingState) -> None:
        """Draw it, if there has been a validation."""
        if state.records and plots_available():
            with decoration(LOSS_CURVE, self.warn):
                save_loss_curve(self.path, self.metrics.losses, state.records)
            self._drawn = time.monotonic()


@contextlib.contextmanager
def decoration(name: str, warn: Say) -> Iterator[None]:
    """Context manager: what happens inside is a help for people, and no reason to stop a run."""
    try:
        yield
    except Exception as error:
        warn(f"{name} could not be written ({type(error).__name__}: {error})")
