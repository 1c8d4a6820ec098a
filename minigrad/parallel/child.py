"""A forked process.

`multiprocessing.Process` would do, but it lets a daemonic process (a worker of a pool, say) have no
children, for fear that they outlive it. Ours do not: they end when they find their parent gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing import connection


class Child:
    """A process that runs `work()` and ends; fork only where `choose_backend` says "processes".

    Args:
        work: what the child does. Nothing of what it changes is seen here, except in shared memory.

    Attributes:
        pid: the process's id.
        exitcode: None while it runs; then its exit status, or minus the number of the signal that
            has killed it; 255 if somebody else has waited for it.
        sentinel: for `multiprocessing.connection.wait`; ready when the process has ended.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        for stream in (sys.stdout, sys.stderr):  # what they hold back would be written twice
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        self.exitcode: int | None = None
        self.sentinel, alive = os.pipe()  # the system closes the child's end when it ends
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.sentinel)
            _live(work)
        os.close(alive)

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most so many seconds."""
        if self.exitcode is None and connection.wait([self.sentinel], timeout):
            try:
                _, status = os.waitpid(self.pid, 0)
                self.exitcode = os.waitstatus_to_exitcode(status)
            except ChildProcessError:
                self.exitcode = 255
            os.close(self.sentinel)

    def kill(self) -> None:
        """End it at once."""
        if self.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def end(self, patience: float = 0.0) -> None:
        """Wait for its end so many seconds, then kill it."""
        self.join(patience)
        self.kill()
        self.join()


def _live(work: Callable[[], None]) -> None:
    """The child's life. What the parent has registered for its own end is not run."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, signal.SIG_DFL)
        work()
        code = 0
    except BaseException:
        with contextlib.suppress(Exception):
            traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)
