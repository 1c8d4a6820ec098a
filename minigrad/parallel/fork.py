"""Forked processes: one for each part of some work, or one that lives until it is closed.

`multiprocessing.Process` does not let a daemonic process (such as a worker of a pool) have
children, because they might outlive it. Ours do not: they end when their parent has gone. Threads
would share the interpreter's lock: a step of a small model is a hundred short calls, and two
threads take longer for them than one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing import connection
from typing import Any, TypeVar

Result = TypeVar("Result")


class WorkerError(RuntimeError):
    """A worker has failed or died, so the results of its job must not be used."""


class Child:
    """A process that runs `work(pipe)` and ends; fork only where `choose_backend` says "processes".

    Args:
        work: what the child does. It is called with the other end of `pipe`. The parent sees what
            it changes only in shared memory.

    Attributes:
        pipe: to and from the child.
        pid: the process's id.
        exitcode: None while it runs; then its exit status, or minus the number of the signal that
            has killed it; 255 if other code has waited for it.
        sentinel: for `multiprocessing.connection.wait`; ready when the process has ended.
    """

    pipe: Any
    sentinel: int

    def __init__(self, work: Callable[[connection.Connection], None]) -> None:
        for stream in (sys.stdout, sys.stderr):  # what they hold back would be written twice
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        self.exitcode: int | None = None
        self.pipe, theirs = multiprocessing.Pipe()
        self.sentinel, alive = os.pipe()  # the system closes the child's end when it ends
        self.pid: int = os.fork()
        if self.pid == 0:
            os.close(self.sentinel)
            self.pipe.close()
            _live(work, theirs)
        os.close(alive)
        theirs.close()

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


def _live(work: Callable[[connection.Connection], None], pipe: connection.Connection) -> None:
    """Runs the child. Functions that the parent has registered for its exit are not run."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, signal.SIG_DFL)
        work(pipe)
        code = 0
    except BaseException:
        with contextlib.suppress(Exception):
            traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def in_processes(work: Callable[[int], Result], count: int) -> list[Result]:
    """`[work(0), ..., work(count - 1)]`, the first in this process, each other in a forked one.

    What `work` changes in a forked process is lost, apart from its result, which must be picklable.
    Fork only where `minigrad.parallel.choose_backend` says "processes".

    Raises:
        WorkerError: a process has died. An exception in one of them is raised here as it is.
    """
    with contextlib.ExitStack() as processes:
        others = [processes.enter_context(_Forked(work, number)) for number in range(1, count)]
        return [work(0), *[other.answer() for other in others]]


def in_a_process(work: Callable[[], Result]) -> Result:
    """`work()` in a forked process: the memory that it takes is gone afterwards.

    Everything else is as with `in_processes`.
    """
    with _Forked(lambda number: work(), 0) as other:
        return other.answer()


class _Forked:
    """A process that computes `work(number)`. It ends with the block, finished or not."""

    def __init__(self, work: Callable[[int], Any], number: int) -> None:
        self._child = Child(partial(_compute, work, number))

    def answer(self) -> Any:
        """Wait for the result."""
        try:
            result, error = self._child.pipe.recv()
        except EOFError:
            raise WorkerError(
                "a process that did a part of the work has died. Out of memory is the usual cause: "
                "try less at a time, or workers=1."
            ) from None
        if error is not None:
            raise error
        return result

    def __enter__(self) -> _Forked:
        return self

    def __exit__(self, *error: object) -> None:
        self._child.pipe.close()  # after an exception or Ctrl-C the answer is not needed
        self._child.end()


def _compute(work: Callable[[int], Any], number: int, pipe: connection.Connection) -> None:
    try:
        answer: tuple[Any, BaseException | None] = work(number), None
    except Exception as error:
        answer = None, error
    with contextlib.suppress(BrokenPipeError):
        pipe.send(answer)
