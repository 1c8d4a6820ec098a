"""The state of a run at one moment, as a value. With weights and averages it makes a checkpoint.

Steps, hooks and files read it. Only the loop changes it, after a step has been made. So a step that
fails leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np

Record = dict[str, Any]  # what is written down about a step or a validation
Part = tuple[np.ndarray, ...]  # a batch: inputs and targets (B, T) each


class Result(NamedTuple):
    """The result of a step.

    Attributes:
        loss: in nats per token.
        grad_norm: before clipping.
        learning_rate: of the optimizer's first group.
        tokens: how many were predicted.
        sampler: its state after the step.
        batches: if the step was not finite, its batches and first key; then no weight has changed.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    sampler: dict[str, int]
    batches: tuple[list[Part], int] | None = None

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are finite, so that the weights have been updated."""
        return isfinite(self.loss) and isfinite(self.grad_norm)


class Made(NamedTuple):
    """The steps since results were last read, and the tokens a second of this epoch so far."""

    results: list[Result]
    tokens_per_second: float


@dataclass
class TrainingState:
    """Where a run is.

    Attributes:
        sampler: seed, epoch, and position in the epoch's windows.
        step: updates made so far, including skipped ones.
        loss_sum, loss_count: of the steps since the last validation.
        grad_norm: of the last step.
        skipped, bad_in_a_row: steps that were skipped because they were not finite.
        records: of the validations, as in `metrics.jsonl`.
        best: "val_loss" of the best validation and which "record" it is, or None.
    """

    sampler: dict[str, int]
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    grad_norm: float = 0.0
    skipped: int = 0
    bad_in_a_row: int = 0
    records: list[Record] = field(default_factory=list)
    best: dict[str, Any] | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the last step belongs to, from 1."""
        return self.sampler["epoch"] + (self.sampler["position"] > 0)

    @property
    def since_best(self) -> int:
        """Validations since the best one."""
        return len(self.records) - 1 - (self.best or {"record": -1})["record"]

    @property
    def is_best(self) -> bool:
        """Whether the last validation is the best so far."""
        return bool(self.records) and self.since_best == 0

    def count(self, result: Result) -> None:
        """Count a step; one that is not finite counts as skipped."""
        if result.finite:
            self.bad_in_a_row = 0
            self.loss_sum, self.loss_count = self.loss_sum + result.loss, self.loss_count + 1
        else:
            self.skipped, self.bad_in_a_row = self.skipped + 1, self.bad_in_a_row + 1
        self.grad_norm, self.sampler = result.grad_norm, result.sampler
        self.step += 1

    def validated(self, record: Record) -> None:
        """Add the record of a validation."""
        if record["val_loss"] < (self.best or {"val_loss": inf})["val_loss"]:
            self.best = {"val_loss": record["val_loss"], "record": len(self.records)}
        self.records.append(record)
        self.loss_sum, self.loss_count = 0.0, 0

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint saves it."""
        return {
            "step": self.step,
            "epoch": self.sampler["epoch"],
            "sampler": self.sampler,
            "records": self.records,
            "best": self.best,
            "loss": {
                "sum": self.loss_sum,
                "count": self.loss_count,
                "grad_norm": self.grad_norm,
                "skipped": self.skipped,
                "bad_in_a_row": self.bad_in_a_row,
            },
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> TrainingState:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, IndexError: it is something else.
        """
        loss, best = saved["loss"], saved["best"]
        if best is not None:  # looked up now, while an error can name the file
            _ = saved["records"][best["record"]]["step"], best["val_loss"]
        return cls(
            sampler=saved["sampler"],
            step=saved["step"],
            loss_sum=loss["sum"],
            loss_count=loss["count"],
            grad_norm=loss["grad_norm"],
            skipped=loss["skipped"],
            bad_in_a_row=loss["bad_in_a_row"],
            records=saved["records"],
            best=best,
        )
