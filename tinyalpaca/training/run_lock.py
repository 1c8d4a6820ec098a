"""One run in a folder at a time. The second is told who holds the lock."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

LOCK = ".lock"
_held: set[str] = set()  # a process's own locks: to the system they would not be in its way


class FolderInUse(RuntimeError):
    """Another run writes to the folder. The message says who, and what to do."""


class RunLock:
    """A lock on a folder that ends with the process, however that ends.

    It is a record lock of the operating system: children do not inherit it, nothing is left behind
    after a kill or a power cut, and clocks play no part. Where the system has none (Windows),
    nothing is locked.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._key = os.path.realpath(self.path)
        self._file: Any = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            FolderInUse: another run has it.
        """
        if self._key in _held:
            raise FolderInUse(self._message({"pid": os.getpid(), "command": "this process"}))
        try:
            locks = importlib.import_module("fcntl")
        except ImportError:
            return
        file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 - held until release
        try:
            locks.lockf(file, locks.LOCK_EX | locks.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read()
            file.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # a file system without locks
            raise FolderInUse(self._message(_parsed(holder))) from None
        self._file = file
        _held.add(self._key)
        me = {"pid": os.getpid(), "host": platform.node(), "command": shlex.join(sys.argv)}
        with contextlib.suppress(OSError):  # on a full disk the lock holds without a name on it
            file.truncate(0)
            file.write(json.dumps(me) + "\n")
            file.flush()

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(0)
                self._file.close()
            self._file = None
            _held.discard(self._key)

    def _message(self, holder: dict[str, Any]) -> str:
        who = "another run"
        if "pid" in holder:
            who = f"process {holder['pid']}"
            if holder.get("host") not in (None, platform.node()):
                who += f" on {holder['host']}"
            who += f" ({holder.get('command', '?')})"
        return (
            f"{self.path.parent} is being written by {who}. Wait for it, stop it, or choose "
            "another folder with --out."
        )


def _parsed(text: str) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}
