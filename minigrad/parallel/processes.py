"""Workers that do the numbered items of a job.

A team calls `do(kind, payload, item)` for every item of a job, in the next worker that is free. The
calling process is itself a worker. Items write their results to shared memory and return nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import connection
from typing import Any, Literal

import numpy as np

from minigrad.parallel.fork import Child, WorkerError
from minigrad.parallel.memory import shared_array

Backend = Literal["processes", "threads"]
Do = Callable[[str, Any, int], None]
AWAKE = 0.002  # seconds that a waiting process spins before it blocks
_let_others_run = getattr(os, "sched_yield", lambda: time.sleep(0))  # macOS has none


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_backend() -> Backend:
    """ "processes" where forking is safe and needed, else "threads".

    Without a global interpreter lock threads do as well; else see `why_not_processes`.
    """
    return "threads" if not _has_gil() or why_not_processes() else "processes"


def why_not_processes() -> str | None:
    """In words, why workers cannot be forked here and must be threads, which are slower.

    A fork copies only the calling thread, with all locks as they are at that moment. If another
    thread holds one, the child waits for it for ever, so other threads forbid a fork. There are two
    exceptions: threads of libraries like BLAS, which handle forks themselves, and the monitor of
    `tqdm`, whose only lock is for progress bars, which workers do not draw.

    Returns:
        None if they can be forked, or if threads are no slower as there is no interpreter lock.
    """
    if not _has_gil():
        return None
    if sys.platform != "linux" or "fork" not in multiprocessing.get_all_start_methods():
        return f"{sys.platform} has no fork that is safe"
    if "ipykernel" in sys.modules:
        return "a notebook's kernel has threads of its own"
    if _mpi_runs():
        return "MPI has been started, whose connections a forked process would share"
    me = threading.current_thread()
    others = [t.name for t in threading.enumerate() if t is not me and not _is_harmless(t)]
    if others:
        return f"other threads of this process are running ({', '.join(others[:3])})"
    return None


def _has_gil() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def _mpi_runs() -> bool:
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized()


def _is_harmless(thread: threading.Thread) -> bool:
    return type(thread).__module__ == "tqdm._monitor"


def make_team(do: Do, workers: int, backend: Backend) -> Alone | Threads | Processes:
    """A team of so many workers, the calling process included."""
    if workers == 1:
        return Alone(do)
    return Processes(do, workers) if backend == "processes" else Threads(do, workers)


class Alone:
    """A team of one: the calling process."""

    def __init__(self, do: Do) -> None:
        self._do = do

    def run(self, kind: str, payload: Any, items: int) -> None:
        """Do every item of a job."""
        for item in range(items):
            self._do(kind, payload, item)

    def close(self) -> None:
        """Nothing to end."""


class Threads:
    """Workers as threads of this process."""

    def __init__(self, do: Do, workers: int) -> None:
        self._do = do
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="minigrad")

    def run(self, kind: str, payload: Any, items: int) -> None:
        """Do every item of a job."""
        futures = [self._pool.submit(self._do, kind, payload, item) for item in range(items)]
        for future in futures:
            future.result()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class Processes:
    """Workers as forked processes. Items are handed out by a shared counter.

    Jobs and answers go through pipes. Waking a process that is blocked at a pipe takes a tenth of a
    millisecond, and a training step has three jobs. So waiting processes spin on shared counters of
    the jobs that have been sent and finished before they block.
    """

    def __init__(self, do: Do, workers: int) -> None:
        self._do = do
        self._next_item = multiprocessing.get_context("fork").Value("q", 0)
        self._jobs = 0
        self._counts = shared_array(workers, np.int64)  # jobs sent; jobs finished by each child
        self._awake = AWAKE if workers <= available_cores() else 0.0
        self._children: list[Child] = []
        for number in range(1, workers):
            self._children.append(Child(partial(self._serve, number, os.getpid())))

    def run(self, kind: str, payload: Any, items: int) -> None:
        """Do every item of a job.

        Raises:
            WorkerError: a worker process raised an exception or died.
            MemoryError: a worker process had not enough memory.
        """
        self._next_item.value = 0
        errors: list[Any] = []
        try:
            with self._all_or_none():
                self._send(kind, payload, items)
            self._take_items(kind, payload, items)
        finally:  # an exception here must not leave answers in the pipes
            with self._all_or_none():
                for number in range(len(self._children)):
                    errors += self._answer(number)
        if errors:
            if isinstance(errors[0], MemoryError):
                raise errors[0]
            raise WorkerError(f"a worker process raised an exception:\n{errors[0]}")

    def _send(self, kind: str, payload: Any, items: int) -> None:
        for number, child in enumerate(self._children):
            try:
                child.pipe.send((kind, payload, items))
            except OSError:
                raise self._died(number) from None
        self._jobs += 1
        self._counts[0] = self._jobs

    @contextlib.contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """If the block fails, end the children, which would be out of step.

        Later jobs are then done by this process only.
        """
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _take_items(self, kind: str, payload: Any, items: int) -> None:
        while True:
            with self._next_item.get_lock():
                item = self._next_item.value
                self._next_item.value += 1
            if item >= items:
                return
            self._do(kind, payload, item)

    def _answer(self, number: int) -> list[Any]:
        """Wait for a worker to finish. Its exception's text (or a MemoryError) if there was one."""
        child = self._children[number]
        pipe = child.pipe
        answered = self._comes_soon(number + 1, self._jobs)
        if not answered:
            connection.wait([pipe, child.sentinel])
        try:
            error = pipe.recv() if answered or pipe.poll() else ""
        except (EOFError, OSError):
            error = ""
        if error == "":  # neither an answer nor an error: it is gone
            raise self._died(number)
        return [error] if error else []

    def _died(self, number: int) -> WorkerError:
        child = self._children[number]
        child.join(1)
        code = child.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return WorkerError(
            f"worker process {child.pid} {how}. Out of memory is the usual cause: try fewer "
            "workers or smaller micro-batches."
        )

    def _comes_soon(self, place: int, job: int) -> bool:
        """Spin until a counter reaches `job`. False if that takes too long."""
        until = time.perf_counter() + self._awake
        while self._counts[place] != job:
            if time.perf_counter() >= until:
                return False
            _let_others_run()
        return True

    def _serve(self, number: int, parent: int, pipe: connection.Connection) -> None:
        """Run in a child: do its share of jobs until the parent has gone."""
        for signal_number in (signal.SIGTERM, signal.SIGHUP):
            # A closing terminal, or who stops a service, sends them to all processes. The parent
            # may want to finish the step that this one works at, and save.
            signal.signal(signal_number, signal.SIG_IGN)
        with contextlib.suppress(EOFError, OSError):
            while True:
                if not self._comes_soon(0, self._jobs + 1):
                    while not pipe.poll(1.0):
                        if os.getppid() != parent:
                            return
                request = pipe.recv()
                if request is None:
                    return
                try:
                    self._take_items(*request)
                    pipe.send(None)
                except MemoryError as error:
                    pipe.send(MemoryError(str(error)))
                except BaseException:
                    pipe.send(traceback.format_exc())
                self._jobs += 1
                self._counts[number] = self._jobs

    def close(self) -> None:
        """End the processes."""
        self._counts[0] = self._jobs + 1  # for those that are awake
        for child in self._children:
            with contextlib.suppress(OSError):
                child.pipe.send(None)
            child.pipe.close()
        for child in self._children:
            child.end(patience=2.0)
        self._children = []
        # One that was killed may have held the lock of the old one.
        self._next_item = multiprocessing.get_context("fork").Value("q", 0)
