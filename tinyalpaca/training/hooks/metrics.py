"""Writes `metrics.jsonl`, and keeps the loss of every step for charts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.device import CPU, device_of
from minigrad.kernels.cuda.changes import Changes
from minigrad.kernels.cuda.compile import REAL
from minigrad.storage import write_text_atomically
from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.metrics_file import METRICS, line_of
from tinyalpaca.training.records import step_record
from tinyalpaca.training.state import Made, Record, TrainingState


class Metrics(Hook):
    """Appends records of steps and validations to a run's `metrics.jsonl`.

    Args:
        folder: of the run.
        every: steps between two records.
        history: the records of a resumed run so far; the file is truncated to them.
        ratios: measures how far the updates of those steps move the weights; or None.

    Attributes:
        history: all records.
        losses: (step, loss) of every step.
    """

    folder: Path
    every: int
    ratios: UpdateRatios | None

    def __init__(
        self,
        folder: Path,
        every: int,
        history: Sequence[Record] = (),
        ratios: UpdateRatios | None = None,
    ) -> None:
        self.folder, self.every, self.ratios = folder, every, ratios
        self.history: list[Record] = list(history)
        self.losses: list[tuple[Any, Any]] = [
            (r["step"], r["loss"]) for r in self.history if r["kind"] == "step"
        ]
        self._file: Any = None

    def before_update(self, step: int) -> None:
        """Remember the weights before the update of a step that will be recorded."""
        if self.ratios is not None and step % self.every == 0:
            self.ratios.remember()

    def on_start(self, state: TrainingState) -> None:
        text = "".join(map(line_of, self.history))
        write_text_atomically(self.folder / METRICS, text, follow_links=False)
        self._file = open(self.folder / METRICS, "a", encoding="utf-8")  # noqa: SIM115

    def on_step(self, state: TrainingState, made: Made) -> None:
        first = state.step - len(made.results) + 1
        self.losses += [(first + n, result.loss) for n, result in enumerate(made.results)]
        if state.step % self.every or not isfinite(made.results[-1].loss):
            return
        record = step_record(state, made)
        if self.ratios is not None and self.ratios.before is not None:
            record["update_ratio"] = self.ratios.measure()
        self.write(record)

    def on_epoch(self, state: TrainingState, record: Record) -> None:
        self.write(record)

    def write(self, record: Record) -> None:
        """Append a record."""
        self.history.append(record)
        self._file.write(line_of(record))
        self._file.flush()

    def sync(self) -> None:
        """Flush to disk the records that a checkpoint relies on."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


class UpdateRatios:
    """How far an update moves each layer, as a share of the layer's size: ‖ΔW‖/‖W‖.

    About 1e-3 is healthy. If it is far smaller, the layer hardly learns; if far larger, it jumps.

    Args:
        flat: the parameters (`FlatParameters`).
        names: of the parameters, in the order of `flat`.
    """

    def __init__(self, flat: Any, names: list[str]) -> None:
        self.flat = flat
        self.layers: dict[str, list[int]] = {}  # the places of its parameters among all
        for number, name in enumerate(names):
            parts = name.split(".")
            layer = ".".join(parts[: 2 if parts[1:] and parts[1].isdigit() else 1])
            self.layers.setdefault(layer, []).append(number)
        self.before: Any = None
        self._squares: Callable[[Any, Any], np.ndarray] = self._squares_on_host
        if not isinstance(flat.array, np.ndarray) and flat.array.dtype.char in REAL:
            with device_of(flat.array).in_use():
                self._squares = Changes(flat.bounds).squares

    def remember(self) -> None:
        """Keep the weights as they are before an update."""
        with device_of(self.flat.array).in_use():
            self.before = self.flat.array.copy()

    def measure(self) -> dict[str, float]:
        """The ratio of each layer since `remember`; on a GPU by one launch and one copy."""
        with device_of(self.flat.array).in_use():
            squares = self._squares(self.flat.array, self.before)  # (P, 2)
        ratios = {}
        for layer, parameters in self.layers.items():
            moved, size = np.sqrt(sum(squares[number] for number in parameters)).tolist()
            ratios[layer] = moved / max(size, 1e-12)
        return ratios

    def _squares_on_host(self, after: Any, before: Any) -> np.ndarray:
        """(P, 2): Σ (after - before)² and Σ before² of each parameter."""
        before = CPU.asarray(before)
        change = CPU.asarray(after) - before
        bounds = self.flat.bounds
        parts = [slice(a, b) for a, b in pairwise(bounds)]
        return np.stack([[np.dot(a[part], a[part]) for a in (change, before)] for part in parts])
