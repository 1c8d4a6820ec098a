"""Whether another process on the same host still runs."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import NamedTuple


class Process(NamedTuple):
    """A process, distinguished from a later one with the same number.

    Attributes:
        host: for people.
        pid: its number there.
        system: what two processes share that see each other's numbers; "" if that is not known.
        began: when it was started, in ticks of that system.
    """

    host: str
    pid: int
    system: str
    began: int

    @classmethod
    def this(cls) -> Process:
        """The calling process."""
        pid = os.getpid()
        found = _state(pid)
        if found is None:  # no /proc, or none that shows anything
            return cls(socket.gethostname(), pid, "", 0)
        return cls(socket.gethostname(), pid, _system(), found[1])

    def ended(self) -> bool:
        """Whether it is known to have ended. Of a process on another host nothing is known."""
        if not self.system or self.system != _system():
            return False
        found = _state(self.pid)
        return found is None or found[0] in "ZXx" or found[1] != self.began


def _system() -> str:
    """Linux's number of this start of the machine, and the name space of process numbers."""
    with contextlib.suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _state(pid: int) -> tuple[str, int] | None:
    """The letter of a process's state and when it began; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
