"""Sharing out work among processes that live as long as the work does.

Threads would have to pass the interpreter's lock around: a step of a small model is a hundred short
calls, and two threads take longer for them than one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from minigrad.parallel.child import Child
from minigrad.parallel.team import WorkerError

Result = TypeVar("Result")


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
        self._pipe, theirs = multiprocessing.Pipe(duplex=False)
        self._process = Child(partial(_serve, theirs, work, number))
        theirs.close()

    def answer(self) -> Any:
        """Wait for the result."""
        try:
            result, error = self._pipe.recv()
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
        self._pipe.close()  # after an exception or Ctrl-C nobody wants the answer
        self._process.end()


def _serve(pipe: Connection, work: Callable[[int], Any], number: int) -> None:
    try:
        answer: tuple[Any, BaseException | None] = work(number), None
    except Exception as error:
        answer = None, error
    with contextlib.suppress(BrokenPipeError):
        pipe.send(answer)
