"""TensorBoard's event files, in the package's own format but without its writer's thread."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.installing import install_line
from minigrad.storage import own_folder
from tinyalpaca.config import ConfigError
from tinyalpaca.console import Say
from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.hooks.metrics import Metrics
from tinyalpaca.training.state import Made, Record, TrainingState

TENSORBOARD = "tensorboard"  # the folder of a run that has the events


class TensorBoard(Hook):
    """Writes a run's records for TensorBoard as well.

    Args:
        folder: of the run.
        metrics: comes before this hook and has the records.
        warn: called with a message if events can no longer be written; nothing depends on them.

    Raises:
        ConfigError: the extra `tensorboard` is not installed.
    """

    warn: Say
    folder: Path
    metrics: Metrics

    def __init__(self, folder: Path, metrics: Metrics, warn: Say) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(f"--tensorboard needs a package: {install_line('tensorboard')}")
        self.folder, self.metrics, self.warn = folder, metrics, warn
        self._events: Any = None
        self._written = len(metrics.history)

    def on_start(self, state: TrainingState) -> None:
        self._events = Events(own_folder(self.folder, TENSORBOARD), state.step)

    def on_step(self, state: TrainingState, made: Made) -> None:
        self._write()

    def on_epoch(self, state: TrainingState, record: Record) -> None:
        self._write()

    def close(self) -> None:
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()

    def _write(self) -> None:
        new = self.metrics.history[self._written :]
        self._written += len(new)
        try:
            for record in new if self._events is not None else ():
                self._events.write(record)
        except Exception as error:  # another package's format, and nothing depends on it
            self._events = None
            self.warn(f"no TensorBoard events from now on ({error})")


class Events:
    """TensorBoard's event files, in the package's own format but without its writer's thread.

    Worker processes may be forked later, which is only safe from a single thread.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2, summary_pb2
        name = f"events.out.tfevents.{time.time():.0f}.{platform.node()}.{os.getpid()}"
        number = len(list(folder.iterdir()))
        while os.path.lexists(folder / f"{name}.{number}"):
            number += 1
        self._file = RecordWriter(open(folder / f"{name}.{number}", "xb"))  # noqa: SIM115
        self._add(file_version="brain.Event:2")
        if step:  # what a run that was killed wrote after this step is to be forgotten
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=step + 1, session_log=start)

    def write(self, record: Record) -> None:
        """Append the numbers of a record."""
        values = [
            self._summary.Summary.Value(tag=tag, simple_value=value)
            for tag, value in numbers_in(record, record["kind"])
        ]
        self._add(step=record["step"], summary=self._summary.Summary(value=values))

    def _add(self, **content: Any) -> None:
        event = self._event.Event(wall_time=time.time(), **content)
        self._file.write(event.SerializeToString())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def numbers_in(record: Record, prefix: str) -> Iterator[tuple[str, float]]:
    """The numbers of a record with the names that they have in TensorBoard."""
    for key, value in record.items():
        if isinstance(value, dict):
            yield from numbers_in(value, f"{prefix}/{key}")
        elif isinstance(value, (int, float, np.floating)) and key not in ("step", "epoch"):
            yield f"{prefix}/{key}", float(value)
