"""What a run records: `metrics.jsonl`, TensorBoard's event files, update ratios, memory.

metrics.jsonl has a JSON object a line: {"kind": "step", ...} every few steps and
{"kind": "epoch", ...} after each validation. Each ends with a checksum of the rest of its line,
"crc32", so that damage is noticed and costs that line alone.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import platform
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.device import CPU, device_of
from minigrad.kernels.cuda.changes import Changes
from minigrad.kernels.cuda.compile import REAL
from minigrad.storage import own_folder, write_text_atomically
from tinyalpaca import console

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
NUMBERS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second")  # of a step
MOST_NAMED = 10  # damaged lines that a message names
_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}$')
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


def line_of(record: Record) -> str:
    """A record as a line of `metrics.jsonl`."""
    text = json.dumps(record)
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode("ascii")):08x}"}}\n'


def read_metrics(
    path: str | os.PathLike[str], say: Callable[[str], None] = lambda line: None
) -> list[Record]:
    """The records of a `metrics.jsonl`; lines that are damaged are left out.

    Args:
        path: the file; if there is none, there are no records.
        say: told which lines are damaged. A last line without an end is not: a run that was killed
            leaves one.
    """
    if not os.path.isfile(path):
        return []
    lines = Path(path).read_bytes().split(b"\n")
    # A file of an older version has no checksums; one that has some has lost what lacks one.
    checked = any(_CHECKSUM.search(line) for line in lines)
    records, damaged = [], []
    for number, line in enumerate(lines, 1):
        record = _record_in(line, checked)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            damaged.append(number)
    if damaged:
        several = len(damaged) > 1
        say(
            f"{os.fspath(path)}: line{'s' if several else ''} "
            f"{', '.join(map(str, damaged[:MOST_NAMED]))}"
            f"{', ...' if len(damaged) > MOST_NAMED else ''} "
            f"{'are' if several else 'is'} damaged and left out"
        )
    return records


def _record_in(line: bytes, checked: bool) -> Record | None:
    """The record in a line, or None if it is damaged."""
    found = _CHECKSUM.search(line)
    if found is not None:
        line = line[: found.start()] + b"}"
        if zlib.crc32(line) != int(found[1], 16):
            return None
    elif checked:
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    if type(record.get("step")) is not int or (not checked and not _is_complete(record)):
        return None
    return record


def steps_in(records: list[Record], last: int) -> list[Record]:
    """The records of steps up to `last` that have all that a report draws."""
    return [r for r in records if r["kind"] == "step" and r["step"] <= last and _is_complete(r)]


def _is_complete(record: Record) -> bool:
    """Whether the record of a step has its numbers."""
    ratios = record.get("update_ratio", {})
    if record["kind"] != "step" or not isinstance(ratios, dict):
        return record["kind"] != "step"
    values = [*(record.get(name) for name in NUMBERS), *ratios.values()]
    return all(type(value) in (int, float) for value in values)


class UpdateRatios:
    """How far an update moves each layer, as a share of the layer's size: ‖ΔW‖/‖W‖.

    About 1e-3 is healthy; far less is a layer that does not learn, far more one that jumps about.

    Args:
        flat: the parameters (`FlatParameters`).
        names: of the parameters, in the order of `flat`.
    """

    def __init__(self, flat: Any, names: list[str]) -> None:
        self.flat = flat
        self.layers: dict[str, list[int]] = {}  # the places of its parameters among all
        for number, name in enumerate(names):
            parts = name.split(".")
            layer = ".".join(parts[: 2 if parts[1].isdigit() else 1])
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


class MetricsLog:
    """Writes records to a folder.

    Args:
        folder: of the run.
        history: the records that a resumed run has already; the file is cut back to them.
    """

    def __init__(self, folder: Path, history: list[Record] | None = None) -> None:
        self.history = list(history or [])
        text = "".join(map(line_of, self.history))
        write_text_atomically(folder / METRICS, text, follow_links=False)
        self._file = open(folder / METRICS, "a", encoding="utf-8")  # noqa: SIM115
        step = max([record["step"] for record in self.history], default=0)
        self._events = make_events(folder, step)

    def write(self, record: Record) -> None:
        """Append a record."""
        self.history.append(record)
        self._file.write(line_of(record))
        self._file.flush()
        if self._events is not None:
            try:
                self._events.write(record)
            except Exception as error:  # another package's format, and nothing depends on it
                self._events = None
                console.warn(f"Warning: no TensorBoard events from now on ({error})")

    def sync(self) -> None:
        """Flush to disk what a checkpoint is going to rely on."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):
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


def make_events(folder: Path, step: int) -> Events | None:
    """A writer of event files in a run's folder if the extra is installed, else None."""
    return Events(own_folder(folder, TENSORBOARD), step) if tensorboard_available() else None
