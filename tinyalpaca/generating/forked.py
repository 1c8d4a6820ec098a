"""Sharing out work among processes that live as long as the work does.

Threads would have to pass the interpreter's lock around: a step of a small model is a hundred short
calls, and two threads take longer for them than one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from minigrad.parallel import WorkerError

Result = TypeVar("Result")


def in_processes(work: Callable[[int], Result], count: int) -> list[Result]:
    """`[work(0), ..., work(count - 1)]`, the first in this process, each other in a forked one.

    What `work` changes in a forked process is lost, apart from its result, which must be picklable.
    Fork only where `minigrad.parallel.choose_backend` says "processes".

    Raises:
        WorkerError: a process has died. An exception in one of them is raised here as it is.
    """
    context = multiprocessing.get_context("fork")
    processes, pipes = [], []
    try:
        for number in range(1, count):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_serve, args=(theirs, work, number), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        return [work(0), *[_answer(pipe) for pipe in pipes]]
    finally:  # after an exception or Ctrl-C nobody wants their answers
        for process, pipe in zip(processes, pipes, strict=True):
            pipe.close()
            process.kill()
            process.join()


def _serve(pipe: Connection, work: Callable[[int], Any], number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        answer: tuple[Any, BaseException | None] = work(number), None
    except Exception as error:
        answer = None, error
    with contextlib.suppress(BrokenPipeError):
        pipe.send(answer)


def _answer(pipe: Connection) -> Any:
    try:
        result, error = pipe.recv()
    except EOFError:
        raise WorkerError(
            "a process that wrote a part of the batch has died. Out of memory is the usual cause: "
            "try fewer texts at a time, or workers=1."
        ) from None
    if error is not None:
        raise error
    return result
