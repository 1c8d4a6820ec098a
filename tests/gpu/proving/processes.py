"""Runs each section as a process with a time limit, so that one that fails or hangs stops no other.

A section is a function of `save` and a `Clock`. It calls `save` with its results so far, as often
as it likes. Saved results are kept even if the process is killed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[3]
Save = Callable[[dict[str, Any]], None]


class Clock:
    """How much time is left.

    Attributes:
        folder: a folder for temporary files.
        toy: whether to use tiny sizes, which only test the section itself.
    """

    def __init__(self, seconds: float, folder: Path, toy: bool = False) -> None:
        self.deadline = time.monotonic() + seconds
        self.folder, self.toy = folder, toy

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.deadline - time.monotonic()

    def pause(self) -> None:
        """Sleep for a moment, while waiting for something."""
        time.sleep(0.1)


class Section(NamedTuple):
    """What to run: `function` is "module:function", `share` its part of the time."""

    name: str
    function: str
    share: float
    title: str = ""


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with this project first on Python's path."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def start(section: Section, seconds: float, folder: Path, toy: bool) -> subprocess.Popen[str]:
    """Start the section's process. Its record and its output go to files in `folder`."""
    with open(_log_of(section, folder), "w", encoding="utf-8") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.gpu.proving.processes", section.function),
                *(str(_record_of(section, folder)), str(seconds), str(folder), str(int(toy))),
            ],
            cwd=ROOT,
            env=environment(PYTHONUNBUFFERED="1"),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,  # so that `stop` also ends the processes that it has started
        )


def finish(
    section: Section,
    process: subprocess.Popen[str],
    seconds: float,
    folder: Path,
    tell: Callable[[Section, dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Wait for a section, at most `seconds`, and return its record.

    Args:
        tell: is called with the section's results so far, whenever there are new ones.
    """
    began, timed_out, told = time.monotonic(), False, ""

    def record_so_far(status: str) -> dict[str, Any]:
        record = {"title": section.title, "seconds": time.monotonic() - began, "status": status}
        with contextlib.suppress(OSError, json.JSONDecodeError):
            record["result"] = json.loads(_record_of(section, folder).read_text(encoding="utf-8"))
        return record

    try:
        while process.poll() is None and not timed_out:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(LOOK, max(0.0, began + seconds - time.monotonic())))
            timed_out = process.poll() is None and time.monotonic() - began >= seconds
            so_far = record_so_far(RUNNING)
            if tell is not None and json.dumps(so_far.get("result")) != told:
                told = json.dumps(so_far.get("result"))
                tell(section, so_far)
    finally:
        status = stop(process)
    record = record_so_far("out of time" if timed_out else "failed" if status else "done")
    if record["status"] != "done":
        log = _log_of(section, folder).read_text(encoding="utf-8", errors="replace")
        record["error"] = log[-2000:]
    return record


def stop(process: subprocess.Popen[Any]) -> int:
    """End a section's process and all processes that it has started; returns its status."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def run_sections(
    sections: Sequence[Section],
    seconds: float,
    folder: Path,
    tell: Callable[[Section, dict[str, Any]], None],
    *,
    toy: bool = False,
) -> None:
    """Run sections one after the other; `tell` gets the record of each as it grows and at its end.

    Time that a section does not use is divided among those after it.
    """
    deadline = time.monotonic() + seconds
    for number, section in enumerate(sections):
        left = max(1.0, deadline - time.monotonic())
        own = left * section.share / sum(s.share for s in sections[number:])
        process = start(section, own, folder, toy)
        tell(section, finish(section, process, own + GRACE, folder, tell))


RUNNING = "cut off"  # the status of a section until it has ended
LOOK = 2.0  # seconds between two reads of a section's results
GRACE = 5.0  # seconds that a section may exceed its time


def write_json(path: Path, record: Any) -> None:
    """Write a file atomically."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".new")
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)
        file.write("\n")
    os.chmod(name, 0o644)
    os.replace(name, path)


def _record_of(section: Section, folder: Path) -> Path:
    return folder / f"{section.name}.json"


def _log_of(section: Section, folder: Path) -> Path:
    return folder / f"{section.name}.log"


def main(arguments: Sequence[str]) -> int:
    """The program of a section's process."""
    function, record, seconds, folder, toy = arguments
    module, _, name = function.partition(":")
    clock = Clock(float(seconds), Path(folder), toy == "1")
    try:
        result = getattr(importlib.import_module(module), name)(
            lambda found: write_json(Path(record), found), clock
        )
        write_json(Path(record), result)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
