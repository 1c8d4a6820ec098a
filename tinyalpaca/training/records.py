"""What is written down about steps and validations, and the machine's memory."""

from __future__ import annotations

import importlib
import sys
from math import exp, log

from tinyalpaca.evaluation import Score
from tinyalpaca.training.state import Made, Record, TrainingState


def per_token(nats: float) -> Record:
    """The perplexity of a loss in nats per token; None where a float cannot hold it."""
    return {"perplexity": exp(nats) if nats < 700 else None}


def per_character(nats: float) -> Record:
    """A loss per character in nats and in bits."""
    return {"nats_per_char": nats, "bits_per_char": nats / log(2)}


def step_record(state: TrainingState, made: Made) -> Record:
    """Of the last step."""
    last = made.results[-1]
    return {
        "kind": "step",
        "step": state.step,
        "epoch": state.epoch,
        "loss": last.loss,
        "learning_rate": last.learning_rate,
        "grad_norm": last.grad_norm,
        "tokens_per_second": made.tokens_per_second,
        "memory_mb": memory_mb(),
    }


def validation_record(
    state: TrainingState, kind: str, score: Score, learning_rate: float
) -> Record:
    """Of a validation: `kind` is "epoch" at the end of one, else "validation"."""
    count = state.loss_count
    return {
        "kind": kind,
        "epoch": state.epoch,
        "step": state.step,
        "train_loss": state.loss_sum / count if count else None,
        "val_loss": score.nats_per_token,
        **{f"val_{k}": v for k, v in per_character(score.nats_per_character).items()},
        **{f"val_{k}": v for k, v in per_token(score.nats_per_token).items()},
        "learning_rate": learning_rate,
        "grad_norm": state.grad_norm,
        "memory_mb": memory_mb(),
        "skipped_steps": state.skipped,
    }


def memory_mb() -> float | None:
    """Largest resident memory of this process so far, in megabytes; None where it is not known."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
