"""What a run records: `metrics.jsonl`, TensorBoard's event files, update ratios, memory.

metrics.jsonl has a JSON object a line: {"kind": "step", ...} every few steps and
{"kind": "epoch", ...} after each validation.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.device import CPU, namespace_of
from minigrad.files import write_text_atomically

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
Record = dict[str, Any]


def per_token(nats: float) -> Record:
    """The perplexity of a loss in nats per token; None where a float cannot hold it."""
    return {"perplexity": exp(nats) if nats < 700 else None}


def per_character(nats: float) -> Record:
    """A loss per character in nats and in bits."""
    return {"nats_per_char": nats, "bits_per_char": nats / log(2)}


def memory_mb() -> float | None:
    """Largest resident memory of this process so far, in megabytes; None where it is not known."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def read_metrics(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a `metrics.jsonl`, up to the first line that is not whole."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            break  # a power cut in the middle of a line
        records.append(record)
    return records


class UpdateRatios:
    """How far an update moves each layer, as a share of the layer's size: ‖ΔW‖/‖W‖.

    About 1e-3 is healthy; far less is a layer that does not learn, far more one that jumps about.

    Args:
        flat: the parameters (`FlatParameters`).
        names: of the parameters, in the order of `flat`.
    """

    def __init__(self, flat: Any, names: list[str]) -> None:
        self.flat = flat
        self.layers: dict[str, list[slice]] = {}
        for name, start, stop in zip(names, flat.bounds[:-1], flat.bounds[1:], strict=True):
            parts = name.split(".")
            layer = ".".join(parts[: 2 if parts[1].isdigit() else 1])
            self.layers.setdefault(layer, []).append(slice(start, stop))
        self.before: Any = None

    def remember(self) -> None:
        """Keep the weights as they are before an update."""
        self.before = self.flat.data.copy()

    def measure(self) -> dict[str, float]:
        """The ratio of each layer since `remember`."""
        change = self.flat.data - self.before
        xp = namespace_of(change)

        def square(array: Any, parts: list[slice]) -> Any:
            return sum(xp.dot(array[part], array[part]) for part in parts)

        arrays = (change, self.before)
        squares = [square(array, parts) for parts in self.layers.values() for array in arrays]
        norms = np.sqrt(CPU.asarray(xp.stack(squares))).reshape(-1, 2).tolist()
        return {
            layer: moved / max(size, 1e-12)
            for layer, (moved, size) in zip(self.layers, norms, strict=True)
        }


class MetricsLog:
    """Writes records to a folder.

    Args:
        folder: of the run.
        history: the records that a resumed run has already; the file is cut back to them.
    """

    def __init__(self, folder: Path, history: list[Record] | None = None) -> None:
        self.history = list(history or [])
        text = "".join(json.dumps(record) + "\n" for record in self.history)
        write_text_atomically(folder / METRICS, text)
        self._file = open(folder / METRICS, "a", encoding="utf-8")  # noqa: SIM115
        step = max([record["step"] for record in self.history], default=0)
        self._events = make_events(folder / TENSORBOARD, step)

    def write(self, record: Record) -> None:
        """Append a record."""
        self.history.append(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._events is not None:
            self._events.write(record)

    def sync(self) -> None:
        """Flush to disk what a checkpoint is going to rely on."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def numbers_in(record: Record, prefix: str) -> Iterator[tuple[str, float]]:
    """The numbers of a record with the names that they have in TensorBoard."""
    for key, value in record.items():
        if isinstance(value, dict):
            yield from numbers_in(value, f"{prefix}/{key}")
        elif isinstance(value, (int, float, np.floating)) and key not in ("step", "epoch"):
            yield f"{prefix}/{key}", float(value)


def tensorboard_available() -> bool:
    """True if the extra `tensorboard` is installed."""
    return importlib.util.find_spec("tensorboard") is not None


class Events:
    """TensorBoard's event files, in the package's own format but without its writer's thread.

    Worker processes may be forked later, which is only safe from a single thread.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2, summary_pb2
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{platform.node()}.{os.getpid()}"
        number = len(list(folder.iterdir()))
        self._file = RecordWriter(open(folder / f"{name}.{number}", "wb"))  # noqa: SIM115
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


def make_events(folder: Path, step: int) -> Events | None:
    """A writer of event files if the extra is installed, else None."""
    return Events(folder, step) if tensorboard_available() else None
