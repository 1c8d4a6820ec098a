"""Micro-batches over CPU workers.

NumPy's element-wise functions run on one thread, so ops are not parallelised inside. Instead a
batch is cut into micro-batches, small enough that their activations stay in cache, and each worker
runs forward *and* backward on whole micro-batches with single-threaded BLAS.

Workers are forked processes over shared memory: they read one flat parameter buffer and write
gradients to lanes (see `minigrad.parallel.lanes`). Where processes cannot be forked safely, or the
interpreter has no global lock, they are threads. The calling process is itself a worker.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection
from typing import Any, Literal

import numpy as np
from threadpoolctl import ThreadpoolController

from minigrad.autograd import grad
from minigrad.op import no_grad
from minigrad.optim.flat import FlatParameters
from minigrad.parallel.lanes import cut, number_of_lanes
from minigrad.parallel.memory import keep_freed_memory
from minigrad.parallel.shared import shared_array
from minigrad.tensor import Tensor

Backend = Literal["processes", "threads"]
Part = tuple[np.ndarray, ...]
Loss = Callable[[Part, int], Tensor]


class WorkerError(RuntimeError):
    """A worker has failed or died. The step that it took part in has changed nothing."""


def choose_backend() -> Backend:
    """ "processes" where forking is safe and needed, else "threads".

    Forking is unsafe on Windows and macOS and beside other threads (notebooks); without a global
    interpreter lock threads do as well.
    """
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    forks = sys.platform == "linux" and threading.active_count() == 1 and _can_fork()
    return "processes" if has_gil and forks and "ipykernel" not in sys.modules else "threads"


def _can_fork() -> bool:
    return "fork" in multiprocessing.get_all_start_methods() and hasattr(os, "fork")


class Workers:
    """Computes losses and gradients of batches, shared among workers.

    Args:
        parameters: the model's; they are moved into one flat buffer, `flat`.
        train_loss: maps the arrays of a micro-batch and its key to the *sum* of its losses. The key
            is a number that is different for each micro-batch of a run (for dropout masks).
        evaluate_loss: likewise, without gradients.
        workers: how many, this process included; 0 for one a core.
        micro_batch_size: sequences (rows of the arrays) at a time.
        backend: "processes" or "threads"; chosen if left out.

    Attributes:
        flat: the parameters and, after `gradients`, their gradients.

    Use it as a context manager, or call `close()`.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        train_loss: Loss,
        evaluate_loss: Loss,
        *,
        workers: int = 0,
        micro_batch_size: int = 4,
        backend: Backend | None = None,
    ) -> None:
        if workers < 0 or micro_batch_size < 1:
            raise ValueError(
                f"workers must not be negative and micro_batch_size at least 1, they are {workers} "
                f"and {micro_batch_size}"
            )
        keep_freed_memory()
        size, dtype = sum(p.size for p in parameters), parameters[0].dtype
        self.workers = workers or available_cores()
        self.micro_batch_size = micro_batch_size
        self.backend: Backend = backend or choose_backend()
        self.flat = FlatParameters(
            parameters, data=shared_array(size, dtype), grad=shared_array(size, dtype)
        )
        lanes = number_of_lanes(size * dtype.itemsize)
        self._lane_gradients = shared_array((lanes, size), dtype)
        self._lane_losses = shared_array(lanes, np.float64)
        self._losses = {"train": train_loss, "evaluate": evaluate_loss}
        self._team: _Processes | _Threads | None = None
        self._blas = ThreadpoolController()

    def gradients(self, arrays: Part, *, scale: float, key: int = 0) -> float:
        """Write the gradient of `scale` times the summed loss of a batch to `flat.grad`.

        Args:
            arrays: (B, ...) each; micro-batches are cut along the first axis.
            scale: for example one over the number of predictions, for a mean.
            key: the step's number; micro-batches get keys made from it.

        Returns:
            `scale` times the summed loss.

        Raises:
            WorkerError: a worker died or raised an exception.
        """
        lanes = self._run("train", arrays, scale, key)
        np.add.reduce(self._lane_gradients[:lanes], axis=0, out=self.flat.grad)
        self.flat.attach_grad()
        return float(np.add.reduce(self._lane_losses[:lanes]))

    def evaluate(self, arrays: Part) -> float:
        """The summed loss of a batch, without gradients."""
        lanes = self._run("evaluate", arrays, 1.0, 0)
        return float(np.add.reduce(self._lane_losses[:lanes]))

    def _run(self, kind: str, arrays: Part, scale: float, key: int) -> int:
        """All lanes of a batch, by whoever is free. Returns how many lanes there are."""
        plan = cut(len(arrays[0]), self.micro_batch_size, len(self._lane_gradients))
        with self._blas.limit(limits=1, user_api="blas"):
            if self.workers == 1:
                for lane in range(len(plan)):
                    self._run_lane(kind, arrays, scale, key, lane)
            else:
                if self._team is None:
                    make = _Processes if self.backend == "processes" else _Threads
                    self._team = make(self._run_lane, self.workers)
                self._team.run(kind, arrays, scale, key, len(plan))
        return len(plan)

    def _run_lane(self, kind: str, arrays: Part, scale: float, key: int, lane: int) -> None:
        """Forward (and backward) of a lane's micro-batches, one after the other."""
        plan = cut(len(arrays[0]), self.micro_batch_size, len(self._lane_gradients))
        first = sum(len(part) for part in plan[:lane])
        total = 0.0
        gradients = self.flat.views(self._lane_gradients[lane]) if kind == "train" else []
        for number, rows in enumerate(plan[lane]):
            part = tuple(a[rows] for a in arrays)
            micro_key = key * 2**20 + first + number
            if kind == "evaluate":
                with no_grad():
                    total += self._losses[kind](part, micro_key).item()
                continue
            loss = self._losses[kind](part, micro_key) * scale
            found = grad(loss, self.flat.parameters, allow_unused=True)
            total += loss.item()
            for place, gradient in zip(gradients, found, strict=True):
                if number:
                    if gradient is not None:
                        place += gradient.data
                else:
                    place[...] = 0 if gradient is None else gradient.data
        self._lane_losses[lane] = total

    def close(self) -> None:
        """End the workers. The parameters stay where they are."""
        if self._team is not None:
            self._team.close()
            self._team = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


RunLane = Callable[[str, Part, float, int, int], None]


class _Threads:
    """Workers as threads of this process."""

    def __init__(self, run_lane: RunLane, workers: int) -> None:
        self._run_lane = run_lane
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="minigrad")

    def run(self, kind: str, arrays: Part, scale: float, key: int, lanes: int) -> None:
        futures = [
            self._pool.submit(self._run_lane, kind, arrays, scale, key, lane)
            for lane in range(lanes)
        ]
        for future in futures:
            future.result()

    def close(self) -> None:
        self._pool.shutdown()


class _Processes:
    """Workers as forked processes. Lanes are handed out by a shared counter."""

    def __init__(self, run_lane: RunLane, workers: int) -> None:
        context = multiprocessing.get_context("fork")
        self._run_lane = run_lane
        self._next_lane = context.Value("q", 0)
        self._children: list[Any] = []
        self._pipes: list[connection.Connection] = []
        for number in range(1, workers):
            ours, theirs = context.Pipe()
            child = context.Process(
                target=self._serve,
                args=(theirs, os.getpid()),
                name=f"minigrad-worker-{number}",
                daemon=True,
            )
            child.start()
            theirs.close()
            self._children.append(child)
            self._pipes.append(ours)

    def run(self, kind: str, arrays: Part, scale: float, key: int, lanes: int) -> None:
        self._next_lane.value = 0
        for number, pipe in enumerate(self._pipes):
            try:
                pipe.send((kind, arrays, scale, key, lanes))
            except OSError:
                raise self._died(number) from None
        error = None
        try:
            self._take_lanes(kind, arrays, scale, key, lanes)
        finally:  # an exception here must not leave answers in the pipes
            for number in range(len(self._pipes)):
                error = self._answer(number) or error
        if error is not None:
            raise WorkerError(f"a worker process raised an exception:\n{error}")

    def _take_lanes(self, kind: str, arrays: Part, scale: float, key: int, lanes: int) -> None:
        while True:
            with self._next_lane.get_lock():
                lane = self._next_lane.value
                self._next_lane.value += 1
            if lane >= lanes:
                return
            self._run_lane(kind, arrays, scale, key, lane)

    def _answer(self, number: int) -> str | None:
        pipe, child = self._pipes[number], self._children[number]
        connection.wait([pipe, child.sentinel])
        if not pipe.poll():
            raise self._died(number)
        try:
            return pipe.recv()
        except (EOFError, OSError):
            raise self._died(number) from None

    def _died(self, number: int) -> WorkerError:
        child = self._children[number]
        child.join(1)
        code = child.exitcode
        how = (
            f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
        )
        pid = child.pid
        self.close()
        return WorkerError(
            f"worker process {pid} {how}. Out of memory is the usual cause: try fewer --workers or "
            "a smaller --micro-batch-size."
        )

    def _serve(self, pipe: connection.Connection, parent: int) -> None:
        """A child's life: answer requests until the parent goes away."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with contextlib.suppress(EOFError, OSError):
            while True:
                while not pipe.poll(1.0):
                    if os.getppid() != parent:
                        return
                request = pipe.recv()
                if request is None:
                    return
                try:
                    self._take_lanes(*request)
                    pipe.send(None)
                except BaseException:
                    pipe.send(traceback.format_exc())

    def close(self) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
        for child in self._children:
            child.join(2)
            if child.is_alive():
                child.kill()
                child.join()
        self._pipes, self._children = [], []
