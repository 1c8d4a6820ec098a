"""Micro-batches over CPU workers.

NumPy's element-wise functions run on one thread, so ops are not parallelised inside. Instead a
batch is split into micro-batches, small enough that their activations stay in cache. Each worker
runs forward *and* backward on whole micro-batches with single-threaded BLAS.

Workers are forked processes with shared memory. They read one flat parameter buffer and add up
gradients in accumulators, called lanes (see `minigrad.parallel.engine`). Where processes cannot be
forked safely, or the interpreter has no global lock, workers are threads. They also share the sum
of the lanes and the optimizer's step, slice by slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite, sqrt
from typing import Any, NamedTuple

import numpy as np

from minigrad.autograd import add_gradients, write_gradients
from minigrad.blas import OneBlasThread, find_blas
from minigrad.optim.clip import clip_scale
from minigrad.optim.flat import FlatParameters
from minigrad.optim.optimizer import Optimizer
from minigrad.optim.update import Place, Update, apply_all
from minigrad.parallel.engine import (
    MICRO_KEYS,
    Loss,
    Part,
    cut,
    in_the_order_of,
    number_of_lanes,
)
from minigrad.parallel.fork import in_a_process
from minigrad.parallel.memory import (
    keep_freed_memory,
    release_freed_memory,
    shared_array,
    use_huge_pages,
)
from minigrad.parallel.processes import (
    Backend,
    available_cores,
    choose_backend,
    make_team,
    why_not_processes,
)
from minigrad.state import first_order, no_grad
from minigrad.tensor import Tensor

SLICE = 2**16  # elements of the flat buffers that a worker takes at a time
# NumPy copies a broadcast operand into a buffer of this many elements wherever rows are shorter;
# with the default of 8192 that makes adding a vector to short rows cost several times a plain add.
UFUNC_BUFFER = 512


class Piece(NamedTuple):
    """A part of an update that one worker does."""

    place: Place
    settings: dict[str, Any]
    sign: int
    part: slice


class Workers:
    """Computes losses and gradients of batches, and updates parameters, shared among workers.

    Numbers do not depend on how many workers there are.

    Args:
        parameters: the model's; they are moved into one flat buffer, `flat`.
        train_loss: maps the arrays of a micro-batch and its key to the *sum* of its losses. The key
            is a number that is different for each micro-batch of a run (for dropout masks).
        evaluate_loss: likewise, without gradients.
        optimizer: the one that `update` will step, if any: its averages are put into flat memory as
            well, and its step is shared among the workers.
        workers: how many, this process included; 0 for one a core.
        micro_batch_size: sequences (rows of the arrays) at a time.
        backend: "processes" or "threads"; chosen if left out.

    Attributes:
        flat: the parameters and, after `gradients`, their gradients.
        grad_norm: the 2-norm of all gradients, after `gradients`.
        backend: what the workers are.
        why_slower: if they are threads because processes could not be forked: the reason, in words.
        pieces: the pieces of an update that are done here, which workers share.

    Use it as a context manager, or call `close()`.
    """

    survives = True  # parameters and averages are here, whatever happens to workers

    def __init__(
        self,
        parameters: Sequence[Tensor],
        train_loss: Loss,
        evaluate_loss: Loss,
        *,
        optimizer: Optimizer | None = None,
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
        if optimizer is not None:
            parameters = in_the_order_of(optimizer, parameters)
        size, dtype = sum(p.size for p in parameters), parameters[0].dtype
        self.workers: int = workers or available_cores()
        self.micro_batch_size = micro_batch_size
        self.backend: Backend = backend or choose_backend()
        self.why_slower: str | None = None
        if backend is None and self.backend == "threads" and self.workers > 1:
            self.why_slower = why_not_processes()
        lanes = number_of_lanes(size * dtype.itemsize)
        memory = shared_array(lanes * size, dtype)
        self._lane_gradients = memory.reshape(lanes, size)
        self.flat: FlatParameters = FlatParameters(  # the lanes are added up in the first one
            parameters, data=shared_array(size, dtype), grad=memory[:size]
        )
        release_freed_memory()  # that of the parameters' old arrays, before it is forked
        self.grad_norm: float = 0.0
        self._optimizer = optimizer
        if optimizer is not None:
            optimizer.flatten(self.flat, shared_array)
        self._lane_losses = shared_array(lanes, np.float64)
        self._slices = [slice(start, start + SLICE) for start in range(0, size, SLICE)]
        self._squares = shared_array(len(self._slices), np.float64)
        self._losses = {"train": train_loss, "evaluate": evaluate_loss}
        self._team: Any = None
        self._settled = False
        self.pieces: Callable[[Update], list[slice]] = lambda update: update.pieces(SLICE)
        find_blas()

    def start(self) -> None:
        """Fork the workers now, if they are processes and that has not been done.

        They know sizes and losses as they are now.
        """
        with OneBlasThread():  # so that forked workers have the limit for good
            if self._team is None:
                self._team = make_team(self._do, self.workers, self.backend)

    def gradients(self, arrays: Part, *, scale: float, key: int = 0, first: int = 0) -> float:
        """Write the gradient of `scale` times the summed loss of a batch to `flat.grad`.

        Args:
            arrays: (B, ...) each; they are split along the first axis.
            scale: for example one over the number of predictions, for a mean.
            key: the step's number; micro-batches get keys made from it.
            first: the number of the first micro-batch, where these are a part of a batch.

        Returns:
            `scale` times the summed loss.

        Raises:
            WorkerError: a worker died or raised an exception.
        """
        lanes = len(self._plan(arrays))
        if not lanes:  # an empty batch: the sum of no losses
            self.flat.grad[...] = 0
            self.grad_norm = 0.0
            self.flat.attach_grad()
            return 0.0
        self._run("train", (arrays, scale, key * MICRO_KEYS + first), lanes)
        self._run("add_lanes", lanes, len(self._slices))
        self.take_norm(self._squares)
        self.flat.attach_grad()
        return float(np.add.reduce(self._lane_losses[:lanes]))

    def take_norm(self, squares: Any) -> None:
        """The gradient's slices have these sums of squares, (n,)."""
        total = float(np.add.reduce(squares))
        self.grad_norm = sqrt(total) if isfinite(total) else total

    def evaluate(self, arrays: Part) -> float:
        """The summed loss of a batch, without gradients; 0 for an empty one."""
        lanes = len(self._plan(arrays))
        if not lanes:
            return 0.0
        self._run("evaluate", (arrays, 1.0, 0), lanes)
        return float(np.add.reduce(self._lane_losses[:lanes]))

    def update(self, optimizer: Optimizer, max_norm: float = float("inf")) -> None:
        """Clip the gradients of the last `gradients` to `max_norm` and step the optimizer.

        As `clip_grad_norm_` and `optimizer.step()`, except that `flat.grad` is not scaled itself.
        """
        scale = clip_scale(self.grad_norm, max_norm)
        before = optimizer.run
        if optimizer is self._optimizer and optimizer.flat is self.flat:
            optimizer.run = self._share
        try:
            optimizer.step(scale)
        finally:
            optimizer.run = before

    def _share(self, updates: list[Update], grad_scale: float) -> None:
        """Do updates in all workers, and here those of memory that the others do not see."""
        apply_all([update for update in updates if update.place is None], grad_scale)
        pieces = [
            Piece(update.place, update.settings, update.sign, part)
            for update in updates
            if update.place is not None
            for part in self.pieces(update)
        ]
        self._run("update", (pieces, grad_scale), len(pieces))

    def micro_batches(self, arrays: Part, key: int = 0) -> Iterator[tuple[Part, int]]:
        """The parts of a batch that are taken one by one, in order, with their losses' keys."""
        plan = [rows for lane in self._plan(arrays) for rows in lane]
        for number, rows in enumerate(plan):
            yield tuple(a[rows] for a in arrays), key * MICRO_KEYS + number

    def measure(self, what: Callable[[], int]) -> int:
        """What `what` returns after `try_micro_batch` of several sizes.

        If workers are processes, it runs in one of its own, and the memory of the largest size is
        not kept.
        """
        if self.backend == "processes":
            with OneBlasThread():
                return in_a_process(what)
        result = what()
        release_freed_memory()
        return result

    def try_micro_batch(self, arrays: Part) -> None:
        """Forward and backward of one micro-batch in this process, for measuring how long it takes.

        Parameters and gradients do not change.
        """
        with OneBlasThread():
            before = np.setbufsize(UFUNC_BUFFER)
            try:
                with first_order():
                    loss = self._losses["train"](arrays, 0)
                # The last lane is unused between steps; `flat.grad` is another one.
                places = self.flat.views(self._lane_gradients[-1])
                write_gradients(loss, self.flat.parameters, places)
            finally:
                np.setbufsize(before)

    def _plan(self, arrays: Part) -> list[list[slice]]:
        return cut(len(arrays[0]), self.micro_batch_size, len(self._lane_gradients))

    def _run(self, kind: str, payload: Any, items: int) -> None:
        self.start()
        with OneBlasThread():
            self._team.run(kind, payload, items)

    def _do(self, kind: str, payload: Any, item: int) -> None:
        """One item of a job, in any worker: a lane, or a slice of the flat buffers."""
        before = np.setbufsize(UFUNC_BUFFER)
        try:
            with OneBlasThread():  # for this thread too, where each has a limit of its own
                self._do_item(kind, payload, item)
        finally:
            np.setbufsize(before)

    def _do_item(self, kind: str, payload: Any, item: int) -> None:
        if kind == "add_lanes":
            part = self._slices[item]
            total = self.flat.grad[part]  # which is the first lane
            for lane in self._lane_gradients[1:payload, part]:
                total += lane
            self._squares[item] = np.dot(total, total)
        elif kind == "update":
            pieces, scale = payload
            place, settings, sign, part = pieces[item]
            assert self._optimizer is not None
            self._optimizer.update_at(place, settings, sign).apply(part, scale)
        else:
            arrays, scale, first = payload
            self._run_lane(kind, arrays, scale, first, item)
            if kind == "train" and not self._settled:  # in each process: it has what it will need
                self._settled = True
                use_huge_pages()

    def _run_lane(self, kind: str, arrays: Part, scale: float, first: int, lane: int) -> None:
        """Forward (and backward) of a lane's micro-batches, one after the other.

        Args:
            first: the key of the batch's first micro-batch.
        """
        plan = self._plan(arrays)
        first += sum(len(part) for part in plan[:lane])
        total = 0.0
        places = self.flat.views(self._lane_gradients[lane])
        for number, rows in enumerate(plan[lane]):
            part = tuple(a[rows] for a in arrays)
            micro_key = first + number
            if kind == "evaluate":
                with no_grad():
                    total += self._losses[kind](part, micro_key).item()
                continue
            with first_order():
                loss = self._losses[kind](part, micro_key)
            total += (loss.array * scale).item()
            leave = add_gradients if number else write_gradients  # so lanes need no zeroing
            leave(loss, self.flat.parameters, places, scale=scale)
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
