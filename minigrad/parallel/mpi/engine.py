"""An engine of many processes: each computes its share of a batch, and gradients are added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf, isfinite, nan
from typing import Any

import numpy as np

from minigrad.device import device_of
from minigrad.optim.clip import gradient_norm
from minigrad.optim.flat import FlatParameters
from minigrad.optim.optimizer import Optimizer
from minigrad.parallel.cpu import SLICE, Workers
from minigrad.parallel.engine import Loss, Part, accumulated
from minigrad.parallel.gpu import WholeBatch
from minigrad.parallel.mpi.ranks import PATIENCE, Ranks, fingerprint
from minigrad.parallel.mpi.sharding import Sharding
from minigrad.parallel.mpi.wire import Wire
from minigrad.parallel.processes import available_cores
from minigrad.tensor import Tensor

CHECK_EVERY = 100  # steps
Ask = Callable[[], float]
Hear = Callable[[np.ndarray], None]


class DataParallel:
    """An `Engine` over all processes that `mpirun` has started, or over a single one.

    Every rank is given the whole batch and computes its rows. So all ranks see the same batches in
    the same order as a single process would, with the same numbers up to the rounding of sums. Then
    the gradients are added up, and each rank makes the same step.

        engine = mpi.DataParallel(model, optimizer, loss)
        for step, batch in enumerate(batches):
            mean = engine.gradients(batch, scale=1 / len(batch[0]), key=step)
            engine.update(optimizer, max_norm=1.0)
        engine.close()

    In a step the ranks communicate twice. First they exchange a few numbers (losses, and those of
    `wishes`); there a rank waits for the others and notices if one has failed. Then they add up
    their gradients, all at once, because lanes become one gradient only at the end of backward, and
    adding up takes 1% of a step.

    Args:
        model: a module, or parameters. All ranks get the values of rank 0 when training starts.
        optimizer: the one that `update` will step.
        loss: maps the arrays of a micro-batch and its key to the *sum* of its losses.
        evaluate_loss: likewise, for `evaluate`; `loss` if left out.
        ranks: the processes; those of `mpirun` if left out.
        workers: the number of workers of this rank; 0 for its share of the host's cores.
        micro_batch_size: sequences of a micro-batch, on the CPU.
        whole_micro_batches: ranks compute whole micro-batches, with the keys of a single process,
            so that dropout masks are the same. Otherwise ranks get equally many rows, up to one.
        check_every: steps between two comparisons of the ranks' parameters.
        shard_optimizer: each rank keeps the optimizer's averages only for its share of the
            parameters, and updates that share (ZeRO-1; Rajbhandari et al., "ZeRO: Memory
            Optimizations Toward Training Trillion Parameter Models", 2020).
        wire: how gradients of a GPU travel: "host", through pinned memory; "device", by an MPI that
            reads the GPU's memory; or "nccl".
        graph: as for `WholeBatch`.

    Attributes:
        own: the engine of this rank, `Workers` or `WholeBatch`.
        ranks: the processes.
        flat, grad_norm: as of every `Engine`, over all ranks.
        wishes: pairs of functions. At each exchange the first returns a number, and the second is
            called with the numbers of all ranks, (size,).

    Raises:
        ValueError: `shard_optimizer` on a GPU.
        RuntimeError: MPI is not installed, or is another than that of `mpirun`.
    """

    whole_micro_batches: bool
    check_every: int

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer,
        loss: Loss,
        evaluate_loss: Loss | None = None,
        *,
        ranks: Ranks | None = None,
        patience: float = PATIENCE,
        workers: int = 1,
        micro_batch_size: int = 4,
        whole_micro_batches: bool = True,
        check_every: int = CHECK_EVERY,
        shard_optimizer: bool = False,
        wire: str = "host",
        graph: bool = False,
    ) -> None:
        self.ranks: Ranks = Ranks(patience) if ranks is None else ranks
        parameters: Sequence[Tensor] = (
            model.parameters() if hasattr(model, "parameters") else list(model)
        )
        parameters = [p for p in parameters if p.requires_grad]
        evaluate_loss = evaluate_loss or loss
        self.own: Workers | WholeBatch
        if parameters[0].device.kind == "gpu":
            self.own = WholeBatch(parameters, loss, evaluate_loss, optimizer=optimizer, graph=graph)
        else:
            self.own = Workers(
                parameters,
                loss,
                evaluate_loss,
                optimizer=optimizer,
                workers=workers or self.ranks.place.workers(available_cores()),
                micro_batch_size=micro_batch_size,
            )
        self.flat: FlatParameters = self.own.flat
        self.whole_micro_batches, self.check_every = whole_micro_batches, check_every
        self.wishes: list[tuple[Ask, Hear]] = []
        self.sharding: Sharding | None = None
        if shard_optimizer and self.ranks.size > 1:
            if not isinstance(self.own, Workers):
                raise ValueError("an optimizer's averages are shared out among CPUs only")
            self.sharding = Sharding(self.own, optimizer, self.ranks)
        self._wire = Wire(self.ranks, self.flat.grad, wire)
        self._steps, self._started, self._closed = 0, False, False

    @property
    def grad_norm(self) -> float:
        return self.own.grad_norm

    @grad_norm.setter
    def grad_norm(self, value: float) -> None:
        self.own.grad_norm = value

    @property
    def micro_batch_size(self) -> int:
        """Sequences at a time; on a GPU 0, for all."""
        return getattr(self.own, "micro_batch_size", 0)

    @micro_batch_size.setter
    def micro_batch_size(self, size: int) -> None:
        if isinstance(self.own, Workers):
            self.own.micro_batch_size = size

    @property
    def why_slower(self) -> str | None:
        """Why this rank's workers are threads, as of `Workers`."""
        return getattr(self.own, "why_slower", None)

    @property
    def survives(self) -> bool:
        """Whether this rank has all that a checkpoint holds, whatever happens to the others."""
        return self.own.survives and self.sharding is None

    def start(self) -> None:
        """Fork this rank's workers, start MPI, and give all ranks the parameters of rank 0.

        The first step does that, if it has not been done before.
        """
        if self._started:
            return
        self._started = True
        if self.ranks.size == 1:
            return
        if isinstance(self.own, Workers):
            self.own.start()  # before MPI has connections that a child would share
        self.ranks.start()
        self._wire.broadcast(self.flat.array)
        self.flat.changed()
        if self.sharding is not None:
            self.sharding.forget()

    def gradients(self, arrays: Part, *, scale: float, key: int = 0, first: int = 0) -> float:
        """Write the gradient of `scale` times the summed loss of a batch to `flat.grad`.

        With `shard_optimizer`, `flat.grad` then has only this rank's share.

        Args:
            arrays: (B, ...) each: the whole batch, the same on all ranks.
            scale: for example one over the number of predictions, for a mean.
            key: the step's number.
            first: is added to the micro-batches' numbers.

        Returns:
            `scale` times the summed loss of the whole batch.

        Raises:
            RankError: another rank has died, hangs, has stopped or has other parameters.
            WorkerError: a worker of this rank died or raised an exception.
        """
        return self._reduced(self._of_share(arrays, scale, key, first))

    def accumulated(self, batches: Sequence[Part], *, scale: float, key: int = 0) -> float:
        """As `gradients`, for the sum over several batches, with one exchange for all of them."""
        return self._reduced(accumulated(_Share(self), batches, scale=scale, key=key))

    def share(self, count: int) -> slice:
        """Which of a batch's rows are this rank's."""
        return slice(0, count) if self._alone else self._rows(count)[0]

    def reduce(self, loss: Any) -> None:
        """Replace a loss, (1,) on the device, and `flat.grad` by the sums over all ranks.

        For callers that compute the gradients of this rank's `share` themselves.
        """
        loss[...] = self._reduced(float(loss.item()), norm=False)

    def update(self, optimizer: Optimizer, max_norm: float = inf) -> None:
        """Clip the gradients of the last `gradients` to `max_norm` and step the optimizer."""
        if self._alone or self.sharding is None:
            self.own.update(optimizer, max_norm)
        else:
            self.sharding.update(optimizer, max_norm)

    def evaluate(self, arrays: Part) -> float:
        """The summed loss of a batch, without gradients. All ranks call it, with the same batch."""
        if self._alone:
            return self.own.evaluate(arrays)
        rows, _ = self._rows(len(arrays[0]))
        mine = tuple(a[rows] for a in arrays)
        loss = float(self.own.evaluate(mine)) if len(mine[0]) else 0.0
        return float(np.add.reduce(self._meet([loss], "validate")[:, 0]))

    def micro_batches(self, arrays: Part, key: int = 0) -> Iterator[tuple[Part, int]]:
        """The parts of the whole batch that are taken one by one, with the keys of their losses."""
        return self.own.micro_batches(arrays, key)

    def check(self) -> None:
        """Raise `RankError` if the parameters are not the same on all ranks."""
        if not self._alone:
            hashes = self._meet([self._fingerprint()], "compare parameters")[:, 0]
            self.ranks.compare(hashes, "the parameters")

    @contextmanager
    def whole_optimizer(self) -> Iterator[None]:
        """Context manager: rank 0 has all averages of the optimizer. All ranks must call it."""
        if self._alone or self.sharding is None:
            yield
        else:
            with self.sharding.whole():
                yield

    def close(self) -> None:
        """End this rank's workers. From now on it works alone; MPI ends with the process."""
        self.own.close()
        if isinstance(self.own, Workers) and self.ranks.started:
            self.own.backend = "threads"  # nothing is forked while MPI runs
        self._closed = True

    def __enter__(self) -> DataParallel:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.ranks.give_up(error)
        self.close()

    # What happens

    @property
    def _alone(self) -> bool:
        return self.ranks.size == 1 or self._closed or self.ranks.status is not None

    def _rows(self, count: int) -> tuple[slice, int]:
        """This rank's rows of a batch, and the number of its first micro-batch."""
        rank, size = self.ranks.rank, self.ranks.size
        micro = self.micro_batch_size
        if self.whole_micro_batches and micro:
            parts = -(-count // micro)
            a, b = parts * rank // size, parts * (rank + 1) // size
            return slice(a * micro, min(b * micro, count)), a
        a, b = count * rank // size, count * (rank + 1) // size
        return slice(a, b), rank + a // (micro or 1)

    def _of_share(self, arrays: Part, scale: float, key: int, first: int = 0) -> float:
        """The local engine's `gradients` of this rank's rows."""
        self.start()
        if self._alone:
            return self.own.gradients(arrays, scale=scale, key=key, first=first)
        rows, number = self._rows(len(arrays[0]))
        mine = tuple(a[rows] for a in arrays)
        if len(mine[0]):
            return self.own.gradients(mine, scale=scale, key=key, first=first + number)
        self.flat.zero_grad()
        return 0.0

    def _reduced(self, loss: float, norm: bool = True) -> float:
        """The sums over all ranks, of a loss, which is returned, and of the gradients.

        Args:
            norm: whether to compute their norm.
        """
        if self._alone:
            return loss
        due = self.check_every > 0 and self._steps % self.check_every == 0
        self._steps += 1
        rows = self._meet([loss, self._fingerprint() if due else nan], "make a step")
        if due:
            self.ranks.compare(rows[:, 1], "the parameters")
        total = float(np.add.reduce(rows[:, 0]))
        if not isfinite(total):  # no rank makes this step
            self.grad_norm = nan
            return total
        if self.sharding is not None:
            squares = self.sharding.scatter_gradients()
            self.grad_norm = float(np.add.reduce(self._meet([squares], "clip")[:, 0])) ** 0.5
            return total
        self._wire.sum()
        if isinstance(self.own, Workers):
            self.own.take_norm(squares_of(self.flat.grad))
        elif norm:
            with device_of(self.flat.array).in_use():
                self.grad_norm = gradient_norm([self.flat.grad])
        return total

    def _meet(self, numbers: list[float], doing: str) -> np.ndarray:
        """All ranks' numbers, (size, k); their `wishes` are exchanged as well."""
        self.start()
        asked = [ask() for ask, _ in self.wishes]
        rows = self.ranks.meet([*numbers, *asked], doing)
        for column, (_, hear) in enumerate(self.wishes, len(numbers)):
            hear(rows[:, column])
        return rows

    def _fingerprint(self) -> float:
        array = self.flat.array
        return fingerprint(array if isinstance(array, np.ndarray) else array.get())


class _Share:
    """This rank's share of the batches, as an engine that others can call."""

    def __init__(self, engine: DataParallel) -> None:
        self.engine, self.flat = engine, engine.flat

    def gradients(self, arrays: Part, *, scale: float, key: int = 0) -> float:
        return self.engine._of_share(arrays, scale, key)

    @property
    def grad_norm(self) -> float:
        return self.engine.grad_norm

    @grad_norm.setter
    def grad_norm(self, value: float) -> None:
        self.engine.grad_norm = value


def squares_of(gradient: np.ndarray, start: int = 0, stop: int | None = None) -> np.ndarray:
    """The sums of squares of a flat gradient's slices, (n,) float64, as `Workers` cuts them."""
    stop = len(gradient) if stop is None else stop
    parts = [gradient[at : min(at + SLICE, stop)] for at in range(start, stop, SLICE)]
    return np.array([np.dot(part, part) for part in parts], np.float64)
