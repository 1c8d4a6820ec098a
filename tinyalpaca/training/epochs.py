"""The end of an epoch: validation, sample, line, record, checkpoint, pictures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyalpaca.generation import Generator
from tinyalpaca.plots import plots_available, save_loss_curve
from tinyalpaca.training.metrics import memory_mb, per_character, per_token

if TYPE_CHECKING:
    from tinyalpaca.trainer import Trainer

LOSS_CURVE = "loss.png"
CURVE_EVERY = 5.0  # seconds; a picture takes a third of one, which is longer than an epoch on a GPU


def finish_epoch(trainer: Trainer, began: float, tokens_per_second: float) -> None:
    """Validate, tell, record and save. All of it happens, or, on a wish to stop, nothing.

    Args:
        began: `time.perf_counter()` when the epoch's training began or went on.
        tokens_per_second: while it trained.

    Raises:
        StopRequested: somebody has asked to stop; the validation is made again at resume.
    """
    with trainer.weights_for_use():
        score = trainer.validate()
        sample = sample_text(trainer, trainer.config.epoch_sample_tokens)
    count = trainer.loss_count
    record: dict[str, Any] = {
        "kind": "epoch",
        "epoch": trainer.epoch_number,
        "step": trainer.step,
        "train_loss": trainer.loss_sum / count if count else None,
        "val_loss": score.nats_per_token,
        **{f"val_{k}": v for k, v in per_character(score.nats_per_character).items()},
        **{f"val_{k}": v for k, v in per_token(score.nats_per_token).items()},
        "learning_rate": trainer.last_learning_rate,
        "grad_norm": trainer.grad_norm,
        "tokens_per_second": tokens_per_second,
        "memory_mb": memory_mb(),
        "skipped_steps": trainer.skipped,
        "seconds": time.perf_counter() - began,
        "sample": sample,
    }
    best = score.nats_per_token < (trainer.best or {"val_loss": inf})["val_loss"]
    if best:
        trainer.best = {"val_loss": score.nats_per_token, "record": len(trainer.records)}
    trainer.records.append(record)
    trainer.loss_sum, trainer.loss_count = 0.0, 0
    if trainer.metrics is not None:
        trainer.metrics.write(record)
    trainer.saver.save(best=best)
    if best:
        trainer.run.publish()
    tell(trainer, record)  # what cannot be printed, or drawn, has been saved
    with decoration(trainer, LOSS_CURVE):
        trainer.curve.draw(trainer.step_losses, trainer.records, every=CURVE_EVERY)


@contextlib.contextmanager
def decoration(trainer: Trainer, name: str) -> Iterator[None]:
    """Context manager: what happens inside is a help for people, and no reason to stop a run."""
    try:
        yield
    except Exception as error:
        trainer.warn(f"{name} could not be written ({type(error).__name__}: {error})")


class LossCurve:
    """The picture of a run, drawn anew as it goes on.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self._drawn = folder / LOSS_CURVE, time.monotonic()

    def draw(
        self,
        step_losses: Sequence[tuple[int, float]],
        epochs: Sequence[dict[str, Any]],
        every: float = 0.0,
    ) -> None:
        """Draw it, if matplotlib is installed, an epoch has ended, and the last picture is at least
        `every` seconds old."""
        if epochs and plots_available() and time.monotonic() - self._drawn >= every:
            save_loss_curve(self.path, step_losses, epochs)
            self._drawn = time.monotonic()


def tell(trainer: Trainer, record: dict[str, Any]) -> None:
    """Print the epoch's line and sample."""
    train_loss = record["train_loss"]
    trainer.say(
        f"Epoch [{record['epoch']}/{trainer.config.epochs}] | "
        f"Train Loss: {'none' if train_loss is None else format(train_loss, '.4f')} | "
        f"Val Loss: {record['val_loss']:.4f} | "
        f"LR: {record['learning_rate']:.2e} | "
        f"{record['val_nats_per_char']:.4f} nats/char | "
        f"{record['tokens_per_second']:,.0f} tokens/s | {record['seconds']:.1f} s"
    )
    if record["sample"]:
        trainer.say("    " + record["sample"].replace("\n", "\n    "))


def sample_text(trainer: Trainer, tokens: int) -> str:
    """Text that the model writes after the configured prompt, the prompt included.

    Raises:
        StopRequested: between two tokens.
    """
    if not tokens:
        return ""
    config = trainer.config
    text = config.prompt
    generator = Generator(trainer.model.eval(), trainer.tokenizer)
    try:
        for piece in generator.stream(config.prompt, tokens, seed=config.seed):
            text += piece
            trainer.stopping.check()
    except ValueError as error:  # a prompt that is empty, or has a character without a token
        trainer.warn(f"no sample: {error}")
        return ""
    return text
