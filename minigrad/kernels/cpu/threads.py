"""The element-wise passes of large kernels, shared among threads where cores would be idle.

BLAS uses all cores for a matmul, and NumPy one for everything else. Training gives every core a
worker of its own. But one long text that is read by one process leaves cores idle between matmuls.
So such a text is run inside `minigrad.blas.sharing()`. Kernels with many slices then
compute them in as many threads as BLAS has, because NumPy lets other threads run meanwhile. The
threads live for one call only, since a process with other threads cannot fork workers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context

from minigrad.blas import OneBlasThread
from minigrad.state import STATE

LEAST = 1 << 18  # elements: the work of fewer takes less time than to start a thread


def shared(count: int, elements: int, work: Callable[[slice], None]) -> None:
    """Call `work` with slices that together take each of `count` pieces once.

    Args:
        count: how many pieces there are. A thread gets every second one, if there are two threads.
        elements: of all pieces together; few are not shared.
        work: computes the pieces of a slice. It has to release Python's lock, as NumPy does, and
            must not write where another piece reads or writes.

    Raises:
        Exception: what `work` has raised in any of the threads.
    """
    threads = min(STATE.threads, count) if elements >= LEAST else 1
    if threads <= 1:
        work(slice(0, count))
        return
    errors: list[BaseException] = []

    def run(first: int) -> None:
        try:
            work(slice(first, count, threads))
        except BaseException as error:
            errors.append(error)

    with OneBlasThread():
        others = [  # with what NumPy shall do about overflows, which belongs to the context
            threading.Thread(target=copy_context().run, args=(run, i)) for i in range(1, threads)
        ]
        for thread in others:
            thread.start()
        run(0)
        for thread in others:
            thread.join()
    if errors:
        raise errors[0]
