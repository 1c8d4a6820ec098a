"""One run in many processes: what ranks do that a single process does not.

All ranks make the same steps, validations and decisions. Only rank 0 prints, samples and saves.
What only one rank knows (a signal, a clock) is exchanged first, when the engine communicates, so
that all ranks act alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.parallel import mpi
from tinyalpaca import console
from tinyalpaca.config import ConfigError, TrainConfig
from tinyalpaca.runs import RunFolder
from tinyalpaca.training.stopping import Stopping
from tinyalpaca.versions import versions

# Settings that the ranks' commands may give differently: each has its own, or rank 0's count.
OWN = frozenset({"out", "quiet", "workers", "tensorboard", "prompt", "keep"})
OWN_TEXTS = frozenset({"data", "validation", "init_from", "tokenizer"})  # where they are


@contextlib.contextmanager
def together(config: TrainConfig) -> Iterator[mpi.Ranks | None]:
    """Context manager: the processes of `mpirun`, or None if there is but this one.

    If a rank fails inside, all others get the reason and stop too; rank 0 prints it.

    Raises:
        ConfigError: they cannot share the batches.
        RuntimeError: MPI is not installed.
    """
    if not config.distributed or mpi.place().size == 1:
        yield None
        return
    ranks = mpi.Ranks(config.rank_timeout)
    with contextlib.ExitStack() as streams:
        try:
            check_batches(config, ranks.size)
            if ranks.rank:
                streams.enter_context(console.muted())
            yield ranks
        except BaseException as error:
            with contextlib.suppress(Exception):
                ranks.start()
            ranks.give_up(error, getattr(error, "exit_status", 1) or 1)
            if told_by_another(ranks, error):
                raise console.AlreadyTold(str(error)) from error
            raise


def told_by_another(ranks: mpi.Ranks, error: BaseException) -> bool:
    """Whether another rank prints an error: rank 0 does, or if it has gone, the next."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, mpi.RankError):
        cause = cause.__cause__
    gone = () if cause is None else cause.ranks
    return ranks.started and ranks.rank > 0 and (ranks.rank > 1 or 0 not in gone)


def check_batches(config: TrainConfig, size: int) -> None:
    """Raise `ConfigError` unless so many ranks can share a batch equally."""
    batch = config.batch_size
    if batch % size:
        below = batch - batch % size
        near = f"{below} or {below + size}" if below else f"{size}"
        raise ConfigError(
            f"{size} ranks cannot share a batch of {batch} sequences equally: give --batch-size "
            f"{near}, or start another number of ranks"
        )
    if config.measure_micro_batch:
        raise ConfigError(
            "--measure-micro-batch goes by a clock, and each rank's would say something else: "
            "give --micro-batch-size with --distributed"
        )
    if config.data == "-":
        raise ConfigError(
            "standard input reaches one rank only: give --data a file that all ranks can read"
        )


def unequal_shares(batch_size: int, micro_batch_size: int, ranks: mpi.Ranks) -> str | None:
    """In words, that ranks which take whole micro-batches get different numbers of them."""
    parts = ceil(batch_size / micro_batch_size)
    if parts % ranks.size == 0:
        return None
    share = batch_size // ranks.size
    better = max(n for n in range(1, min(share, micro_batch_size) + 1) if share % n == 0)
    return (
        f"{ranks.size} ranks share {parts} micro-batches of {micro_batch_size} sequences, some "
        "have more than others: dropout masks are drawn for whole ones. "
        f"--micro-batch-size {better} shares them equally, with other masks"
    )


class ElsewhereFolder(RunFolder):
    """What other ranks have instead of the run's folder: a temporary folder for tokens.

    Checkpoints come at the same steps as on rank 0, but are not written.
    """

    path: Path

    def __init__(self) -> None:
        super().__init__(Path(tempfile.gettempdir()) / "not made yet")

    @contextlib.contextmanager
    def open(self) -> Iterator[RunFolder]:
        if self.path.exists():
            yield self
            return
        with tempfile.TemporaryDirectory(prefix="tinyalpaca-rank-") as folder:
            self.path = Path(folder)
            yield self

    def refuse_strangers(self) -> None:
        """There are none."""

    def set_earlier_aside(self) -> Path | None:
        return None

    def add(self, name: str, write: Callable[[Path], None], *, best: bool, keep: int) -> Path:
        write(self.path)
        return self.path

    def publish(self, pointer: str = "") -> None:
        """Rank 0 does that."""

    def mend_best(self, step: int, say: Callable[[str], None]) -> None:
        """Rank 0 does that."""


class StoppingTogether(Stopping):
    """A request to stop at one rank, on which all ranks act at the same step.

    Args:
        max_minutes: as for `Stopping`.

    Attributes:
        agreed: the signal that some rank has had, -1 if its time was up, or 0 for no request.
        alone: whether this rank need not ask the others, as when training is over.
    """

    agreed: int
    alone: bool
    signal: int

    def __init__(self, max_minutes: float = 0.0) -> None:
        super().__init__(max_minutes)
        self.agreed, self._rank, self.alone = 0, 0, False

    def wish(self) -> float:
        """What this rank sends to the others."""
        return float(self.signal or (-1 if self.out_of_time else 0))

    def hear(self, wishes: np.ndarray) -> None:
        """Read what all ranks have sent, (size,); the first request to stop counts."""
        wanted = np.flatnonzero(wishes)
        if len(wanted) and not self.agreed:
            self._rank = int(wanted[0])
            self.agreed = int(wishes[self._rank])
            if self.agreed > 0:
                self.signal = self.agreed

    @property
    def wanted(self) -> bool:
        return self.agreed != 0 or (self.alone and super().wanted)

    @property
    def reason(self) -> str:
        return f"{super().reason}, rank {self._rank}" if self.agreed > 0 else super().reason

    @property
    def exit_status(self) -> int:
        return 128 + self.agreed if self.agreed > 0 else 0


class OfFirst:
    """A question that rank 0 answers for all, whenever the engine communicates.

    Args:
        ask: what rank 0 finds.
    """

    ask: Callable[[], bool]
    answer: bool

    def __init__(self, ask: Callable[[], bool]) -> None:
        self.ask, self.answer = ask, False

    def wish(self) -> float:
        return float(self.ask())

    def hear(self, wishes: np.ndarray) -> None:
        self.answer = bool(wishes[0])


def refuse_others(
    ranks: mpi.Ranks, config: TrainConfig, model: Any, step: int, **more: Any
) -> None:
    """Raise `ConfigError` unless all ranks would train the same thing.

    Args:
        model: its settings.
        step: where the run is.
        more: what else must be the same.
    """
    things: dict[str, Any] = {
        f"--{name.replace('_', '-')}": value
        for name, value in dataclasses.asdict(config).items()
        if name not in OWN | OWN_TEXTS
    }
    sizes = vars(model) if dataclasses.is_dataclass(model) else {"model": str(model)}
    things |= {f"--{name.replace('_', '-')}": value for name, value in sizes.items()}
    things |= {f"version of {name}": value for name, value in versions().items()}
    things |= {f"version of {name}": value for name, value in ranks.versions.items()}
    things |= {"step": step, **more}
    lines = ranks.differences(things)
    if lines:
        raise ConfigError("the ranks do not train the same thing:\n  " + "\n  ".join(lines))


def digest(arrays: dict[str, Any]) -> str:
    """A short hash of arrays by name."""
    found = hashlib.blake2b(digest_size=8)
    for name in sorted(arrays):
        found.update(name.encode())
        found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()
