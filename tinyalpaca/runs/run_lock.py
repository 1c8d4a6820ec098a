"""One run in a folder at a time. For a second one the error names who holds the lock."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import platform
import shlex
import stat
import sys
import threading
from pathlib import Path
from typing import Any

from minigrad.storage import remove_link

LOCK = ".lock"
MOST_READ = 1 << 16  # bytes of what the holder says of itself
_held: set[str] = set()  # a process's own locks: to the system they would not be in its way
_one_at_a_time = threading.Lock()  # a thread that looks into `_held`, locks, and adds to it


class FolderInUse(RuntimeError):
    """Another run writes to the folder. The message says who, and what to do."""


class RunLock:
    """A lock on a folder that is released when the process ends, however it ends.

    It is a record lock of the operating system: child processes do not inherit it, nothing remains
    after a kill or a power cut, and it does not depend on clocks. Where the system has no such
    locks (Windows), nothing is locked.
    """

    def __init__(self, folder: Path) -> None:
        self.path: Path = folder / LOCK
        self._key = os.path.realpath(self.path)
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            FolderInUse: another run has it.
        """
        with _one_at_a_time:
            self._acquire()

    def _acquire(self) -> None:
        if self._key in _held:
            raise FolderInUse(self._message({"pid": os.getpid(), "command": "this process"}))
        try:
            locks = importlib.import_module("fcntl")
        except ImportError:
            return
        descriptor = self._locked(locks)
        if descriptor is not None and not _own(descriptor):
            # It has another name: what is written here would stand there as well.
            os.close(descriptor)
            self.path.unlink()
            descriptor = self._locked(locks)
        if descriptor is None:
            return
        self._descriptor = descriptor
        _held.add(self._key)
        me = {"pid": os.getpid(), "host": platform.node(), "command": shlex.join(sys.argv)}
        with contextlib.suppress(OSError):  # on a full disk the lock holds without a name on it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, (json.dumps(me) + "\n").encode("utf-8"))

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
                os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self._key)

    def _locked(self, locks: Any) -> int | None:
        """The lock's file, open and locked; None if the file system has no locks."""
        remove_link(self.path)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            locks.lockf(descriptor, locks.LOCK_EX | locks.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, MOST_READ) if _own(descriptor) else b""
            os.close(descriptor)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return None
            raise FolderInUse(self._message(_parsed(holder))) from None
        return descriptor

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


def _own(descriptor: int) -> bool:
    """Whether an open file is an ordinary one without other names (hard links)."""
    state = os.fstat(descriptor)
    return stat.S_ISREG(state.st_mode) and state.st_nlink == 1


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}
