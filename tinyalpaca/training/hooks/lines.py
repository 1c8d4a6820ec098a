"""What a run shows: a progress bar, and a line for each validation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from math import ceil
from typing import Any

from tinyalpaca.console import Bar, Say, Tolerant
from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.state import Made, Record, TrainingState

FEW_STEPS = 50  # of a whole run; a new model learns hardly more than how often tokens occur


class Lines(Hook):
    """Prints a line at the start, and a line and a sample after each validation.

    Args:
        epochs, steps: of the run.
        sequences: of a step.
        say: prints.
    """

    say: Say
    epochs: int
    steps: int
    sequences: int

    def __init__(self, epochs: int, steps: int, sequences: int, say: Say) -> None:
        self.epochs, self.steps, self.sequences, self.say = epochs, steps, sequences, say

    def on_start(self, state: TrainingState) -> None:
        self.say(f"Training: {self.steps - state.step:,} steps of {self.sequences} sequences")
        if self.steps < FEW_STEPS:
            self.say(
                "So few steps teach a model little: a longer text, more --epochs or a smaller "
                "--batch-size make more."
            )

    def on_epoch(self, state: TrainingState, record: Record) -> None:
        train_loss = record["train_loss"]
        step = f", step {state.step:,}" if record["kind"] == "validation" else ""
        self.say(
            f"Epoch [{record['epoch']}/{self.epochs}]{step} | "
            f"Train Loss: {'none' if train_loss is None else format(train_loss, '.4f')} | "
            f"Val Loss: {record['val_loss']:.4f} | "
            f"LR: {record['learning_rate']:.2e} | "
            f"{record['val_nats_per_char']:.4f} nats/char | "
            f"{record['tokens_per_second']:,.0f} tokens/s | {record['seconds']:.1f} s"
        )
        if record.get("sample"):
            self.say("    " + record["sample"].replace("\n", "\n    "))


class ProgressBar(Hook):
    """A bar for each epoch.

    Args:
        epochs: of the run.
        steps_per_epoch, total_steps: how long the bars are.
        windows_per_step: of the data, by which the sampler's position becomes a number of steps.
        quiet: show none.
    """

    epochs: int
    quiet: bool
    steps_per_epoch: int
    total_steps: int

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        total_steps: int,
        windows_per_step: int,
        quiet: bool = False,
    ) -> None:
        self.epochs, self.quiet = epochs, quiet
        self.steps_per_epoch, self.total_steps = steps_per_epoch, total_steps
        self.windows_per_step = windows_per_step
        self._bar: Any = None

    def on_step(self, state: TrainingState, made: Made) -> None:
        if self._bar is None:
            position = state.sampler["position"]
            done = ceil(position / self.windows_per_step) if position else self.steps_per_epoch
            self._bar = progress_bar(
                f"Epoch {state.epoch}/{self.epochs}",
                total=min(self.steps_per_epoch, done + self.total_steps - state.step),
                initial=done - len(made.results),
                quiet=self.quiet,
            )
        loss, rate = made.results[-1].loss, made.tokens_per_second
        self._bar.set_postfix_str(f"loss {loss:.4f}, {rate:,.0f} tokens/s", refresh=False)
        self._bar.update(len(made.results))

    def on_validation(self, state: TrainingState) -> Mapping[str, Any]:
        self.close()
        return {}

    def on_stop(self, state: TrainingState, reason: str | None) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def progress_bar(text: str, *, total: int, initial: int = 0, quiet: bool = False) -> Any:
    """A bar of `total` steps on standard error that suits the place: a terminal or a notebook.

    Nothing is shown if `quiet`, or if standard error is no terminal, as in a pipe.
    """
    seen = Tolerant(sys.stderr).isatty() or "ipykernel" in sys.modules
    return Bar(
        total=total,
        initial=initial,
        desc=text,
        unit="step",
        dynamic_ncols=True,
        mininterval=0.25,
        leave=False,
        disable=quiet or not seen,
        file=sys.stderr,
    )
