"""`metrics.jsonl`: a JSON object a line.

{"kind": "step", ...} every few steps, {"kind": "epoch", ...} after each epoch's validation and
{"kind": "validation", ...} after others. Each ends with a checksum of the rest of its line,
"crc32", so that damage is noticed and costs that line alone.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path

from tinyalpaca.training.state import Record

METRICS = "metrics.jsonl"
NUMBERS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second")  # of a step
MOST_NAMED = 10  # damaged lines that a message names
_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}$')


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
        say: called with the numbers of damaged lines. A last line without an end is not reported:
            a run that was killed leaves one.
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


def history_of(
    folder: Path, last: int, records: list[Record], say: Callable[[str], None]
) -> list[Record]:
    """The records of a run up to a step: those of steps, and the `records` of validations."""
    steps = steps_in(read_metrics(folder / METRICS, say), last)
    return sorted([*steps, *records], key=lambda record: record["step"])
