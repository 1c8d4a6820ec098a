"""The processes that MPI has started together, and exchanges that do not wait for ever.

MPI silently waits until all ranks take part. Here each rank polls: while it waits it checks whether
another rank has died, has sent the reason why it stops, or is too late. Such waiting takes no
processor time from ranks that still compute.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minigrad.installing import install_line
from minigrad.parallel.fork import WorkerError
from minigrad.parallel.mpi import launcher
from minigrad.parallel.mpi.alive import Process

PATIENCE = 300.0  # seconds that a rank waits for the others
ROLL_CALL = 5.0  # seconds in which those that are there answer
MOST_NUMBERS = 7  # that are exchanged at a meeting
LOOK_EVERY = 0.2  # seconds
# Others come within a fraction of a step as a rule; to sleep and wake takes a tenth of a
# millisecond. After so many seconds the processor is left to others.
AWAKE, NAP = 0.005, 0.0005
LAST_WORDS = 0.3  # seconds in which a launcher reads what a process has written before it ends all
GOODBYE, PRESENT = 1, 2  # tags of messages
MISSING = f"many processes need MPI and mpi4py: {install_line('mpi')}"


class RankError(WorkerError):
    """Another rank has died, hangs, differs or has stopped; the message says which, and why.

    Attributes:
        ranks: which.
        spoiled: whether the parameters of this rank may be wrong as well.
    """

    ranks: tuple[int, ...]
    spoiled: bool

    def __init__(self, message: str, ranks: tuple[int, ...] = (), *, spoiled: bool = False) -> None:
        super().__init__(message)
        self.ranks, self.spoiled = ranks, spoiled


class Ranks:
    """All processes of `mpirun`, this one among them.

    MPI is started by `start`, so processes can be forked before.

    Args:
        patience: seconds that a rank waits for the others before it raises an error.
        place: which process this is; by the launcher's variables if left out.

    Attributes:
        place: which process this is.
        rank, size: its number, and how many there are.
        started: whether MPI has been started by this object.
        versions: of mpi4py and of MPI, once it has been started.
        status: the exit status of all processes if they cannot continue together; else None.

    Raises:
        RuntimeError: mpi4py or MPI is not installed, and there are several processes.
    """

    rank: int
    size: int
    started: bool

    def __init__(self, patience: float = PATIENCE, place: launcher.Place | None = None) -> None:
        self.place: launcher.Place = launcher.place() if place is None else place
        self.rank, self.size = self.place.rank, self.place.size
        self.patience = patience
        self.started = self._left = False
        self._told = False
        self.versions: dict[str, str] = {}
        self.status: int | None = None
        self._mpi: Any = None
        self._comm: Any = None
        self._peers: list[Process] = []
        self._goodbyes: list[Any] = []  # messages on their way, with what they hold
        if self.size > 1:
            require_mpi()

    def start(self) -> None:
        """Start MPI, unless that has been done. All ranks do so.

        Raises:
            RuntimeError: MPI and the launcher disagree about the processes.
        """
        if self.started or self.size == 1:
            return
        self._mpi = MPI = _mpi()
        if MPI.Is_finalized():
            raise RuntimeError("MPI has been ended in this process, and cannot be started again")
        if not MPI.Is_initialized():
            MPI.Init_thread(MPI.THREAD_FUNNELED)
        world = MPI.COMM_WORLD
        library = MPI.Get_library_version().splitlines()[0][:60]
        self.versions = {"mpi4py": sys.modules["mpi4py"].__version__, "MPI": library}
        if (world.rank, world.size) != (self.rank, self.size):
            raise RuntimeError(
                f"{self.place.launcher} started this process as rank {self.rank} of {self.size}, "
                f"but MPI says {world.rank} of {world.size}: the launcher belongs to another MPI "
                f"than mpi4py ({library}). Take the mpirun beside {sys.executable}"
            )
        self._comm = world.Dup()
        self.started = True
        self._peers = [Process(*peer) for peer in self.gather(Process.this())]
        # MPICH's launcher, with the option not to kill the others, sends them this signal when one
        # has died, and they would silently end.
        with contextlib.suppress(AttributeError, ValueError):  # no such signal; not the main thread
            if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
                signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        atexit.register(self._at_exit)

    def name(self, rank: int) -> str:
        """A rank in words: "rank 2 (process 4711 on host)"."""
        if rank >= len(self._peers):
            return f"rank {rank}"
        return f"rank {rank} (process {self._peers[rank].pid} on {self._peers[rank].host})"

    # Meetings

    def meet(self, numbers: Any, doing: str = "meet") -> np.ndarray:
        """Everybody's numbers.

        Args:
            numbers: (k,), at most `MOST_NUMBERS`, as many on each rank.
            doing: what this rank does, for messages.

        Returns:
            (size, k), the same on all ranks.

        Raises:
            RankError: a rank has died, stopped, is late, or does something else.
        """
        mine = np.asarray(numbers, np.float64)
        if self.size == 1:
            return mine[None]
        row = np.zeros(MOST_NUMBERS + 1)
        row[0], row[1 : 1 + len(mine)] = zlib.crc32(doing.encode()), mine
        rows = np.empty((self.size, len(row)))
        self._wait(lambda comm: comm.Iallgather(row, rows), doing)
        if (rows[:, 0] != rows[0, 0]).any():
            self.status = 1
            elsewhere = tuple(np.flatnonzero(rows[:, 0] != row[0]).tolist())
            raise RankError(f"{_several(elsewhere)} did something else where the rest {doing}")
        return rows[:, 1 : 1 + len(mine)]

    def sum(self, array: Any, doing: str = "add up gradients") -> None:
        """Replace an array, in memory that MPI can read, by the sum of all ranks' arrays."""
        if self.size > 1:
            in_place = self._mpi.IN_PLACE
            self._wait(lambda comm: comm.Iallreduce(in_place, array), doing, hurry=True)

    def scatter_sum(self, array: Any, share: Any, counts: list[int]) -> None:
        """Write to `share` the part of the sum of all ranks' arrays that is this rank's.

        Args:
            array: as long as all parts together.
            share: (counts[rank],)
            counts: elements of each rank's part, in order.
        """
        self._wait(
            lambda comm: comm.Ireduce_scatter(array, share, counts), "add up gradients", hurry=True
        )

    def collect(self, array: Any, counts: list[int]) -> None:
        """Fill an array with every rank's part of it, as `scatter_sum` cuts it."""
        in_place = self._mpi.IN_PLACE
        self._wait(
            lambda comm: comm.Iallgatherv(in_place, [array, counts]), "share parameters", hurry=True
        )

    def collect_at_first(self, array: Any, counts: list[int]) -> None:
        """As `collect`, but on rank 0 alone."""
        start = sum(counts[: self.rank])
        mine = array[start : start + counts[self.rank]] if self.rank else self._mpi.IN_PLACE
        everything = None if self.rank else [array, counts]
        self._wait(lambda comm: comm.Igatherv(mine, everything), "save", hurry=True)

    def broadcast(self, array: Any, doing: str = "share parameters") -> None:
        """Replace an array by that of rank 0."""
        if self.size > 1:
            self._wait(lambda comm: comm.Ibcast(array, 0), doing, hurry=True)

    def gather(self, thing: Any, doing: str = "start") -> list[Any]:
        """What every rank has; all get all of it. As JSON: what that lacks becomes its `repr`."""
        if self.size == 1:
            return [thing]
        mine = np.frombuffer(json.dumps(thing, default=repr).encode(), np.uint8)
        sizes = self.meet([len(mine)], doing)[:, 0].astype(int).tolist()
        everything = np.empty(sum(sizes), np.uint8)
        self._wait(lambda comm: comm.Iallgatherv(mine, [everything, sizes]), doing)
        ends = np.cumsum(sizes).tolist()
        starts = [end - size for end, size in zip(ends, sizes, strict=True)]
        return [json.loads(everything[a:b].tobytes()) for a, b in zip(starts, ends, strict=True)]

    def differences(self, things: Mapping[str, Any]) -> list[str]:
        """In words, the differences of other ranks from rank 0."""
        everybody = self.gather(dict(things), "compare their settings")
        first, lines = everybody[0], []
        for rank, theirs in enumerate(everybody[1:], 1):
            for name in sorted({*first, *theirs}):
                if theirs.get(name) != first.get(name):
                    lines.append(
                        f"{name}: {first.get(name)} on {self.name(0)}, "
                        f"{theirs.get(name)} on {self.name(rank)}"
                    )
        return lines

    def compare(self, hashes: np.ndarray, what: str) -> None:
        """Raise `RankError` if the ranks' hashes, (size,), are not all the same."""
        if (hashes == hashes[0]).all():
            return
        kinds = [tuple(np.flatnonzero(hashes == h).tolist()) for h in dict.fromkeys(hashes)]
        kinds.sort(key=len, reverse=True)
        if len(kinds) == 2 and len(kinds[0]) > len(kinds[1]):
            who, odd = f"{_several(kinds[1])} differ from those of all others", kinds[1]
        else:
            kinds.sort()
            first, *others = map(_several, kinds)
            who, odd = f"{first} differ from those of {' and '.join(others)}", sum(kinds, ())
        self.status = 1
        message = f"{what} of {who}: these processes do not compute the same"
        raise RankError(message, odd, spoiled=True)

    # Waiting

    def _wait(
        self, begin: Callable[[Any], Any], doing: str, hurry: bool = False, patience: float = 0.0
    ) -> None:
        """Start an operation and wait for its end; with `hurry` without sleeping."""
        if not self.started:
            raise RuntimeError("the ranks have not been started")
        if self._left:
            raise RuntimeError("the ranks have parted")
        try:
            self._poll(begin, doing, hurry, patience or self.patience)
        except RankError:
            self.status = 1  # there is no way back for these ranks
            raise

    def _poll(self, begin: Callable[[Any], Any], doing: str, hurry: bool, patience: float) -> None:
        began = looked = time.monotonic()
        try:
            request = begin(self._comm)
            while not request.Test():
                now = time.monotonic()
                if now - looked > LOOK_EVERY:
                    looked = now
                    self._look(doing)
                    if now - began > patience:
                        self._call_the_roll(doing, patience)
                if hurry or now - began < AWAKE:
                    _let_others_run()
                else:
                    time.sleep(NAP)
        except self._mpi.Exception as error:
            time.sleep(LOOK_EVERY)  # the system may not have noticed yet who has died
            self._look(doing)
            raise RankError(f"MPI failed where the ranks {doing}: {error}") from error

    def _look(self, doing: str) -> None:
        """Raise `RankError` if a rank has stopped or has died."""
        status = self._mpi.Status()
        if self._comm.Iprobe(tag=GOODBYE, status=status):
            rank = status.Get_source()
            message = self._receive(rank, GOODBYE)
            raise RankError(f"{self.name(rank)} has stopped: {message}", (rank,))
        gone = [n for n, peer in enumerate(self._peers) if n != self.rank and peer.ended()]
        if gone:
            names = ", ".join(map(self.name, gone))
            raise RankError(f"{names} has died while the others {doing}", tuple(gone))
        if self._comm.Iprobe(tag=PRESENT):
            self._call_the_roll(doing, self.patience)

    def _call_the_roll(self, doing: str, patience: float) -> None:
        """Ask all ranks for an answer; raise `RankError` with the names of those that give none."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        for rank in others:
            self._send(rank, PRESENT, b"")
        missing, until = set(others), time.monotonic() + min(ROLL_CALL, patience)
        while missing and time.monotonic() < until:
            for rank in tuple(missing):
                if self._comm.Iprobe(source=rank, tag=PRESENT):
                    self._receive(rank, PRESENT)
                    missing.discard(rank)
            time.sleep(0.01)
        late = tuple(sorted(missing))
        who = ", ".join(map(self.name, late)) or "nobody, but not all at the same place,"
        raise RankError(
            f"{who} has not come within {patience:g} seconds where the others {doing}: it hangs, "
            "or cannot be reached",
            late,
        )

    def _send(self, rank: int, tag: int, data: bytes) -> None:
        self._goodbyes.append((self._comm.Isend(data, rank, tag), data))

    def _receive(self, rank: int, tag: int) -> str:
        status = self._mpi.Status()
        self._comm.Probe(rank, tag, status)
        data = bytearray(status.Get_count(self._mpi.BYTE))
        self._comm.Recv(data, rank, tag)
        return data.decode("utf-8", "replace")

    # The end

    def part(self) -> None:
        """End MPI on all ranks together. They wait for the last one, however long it takes."""
        if not self.started or self._left:
            return
        self._wait(lambda comm: comm.Ibarrier(), "end", patience=float("inf"))
        self._left = True
        self._comm.Free()
        self._mpi.Finalize()

    def give_up(self, error: BaseException, status: int = 1) -> None:
        """Send the others the reason why this rank stops.

        They raise `RankError` where they wait next. When this process ends, so do all others that
        still run; rank 0 may save first.
        """
        if not self.started or self._left or self._told:
            return
        self.status, self._told = status, True
        text = str(error) or type(error).__name__
        with contextlib.suppress(Exception):
            for rank in range(self.size):
                if rank != self.rank and not self._peers[rank].ended():
                    self._send(rank, GOODBYE, text.encode("utf-8")[:4000])
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                if all([request.Test() for request, _ in self._goodbyes]):
                    break
                time.sleep(0.01)

    def _at_exit(self) -> None:
        """End MPI with the others. If this process ends by an error, end the others as well."""
        if self._left:
            return
        failed = getattr(sys, "last_value", None)  # an exception that was not caught
        if failed is not None:
            self.give_up(failed)
        if self.status is None:
            with contextlib.suppress(RankError):  # another rank has failed
                self.part()
                return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        time.sleep(LAST_WORDS)
        until = time.monotonic() + self.patience
        while self.rank and time.monotonic() < until and not self._peers[0].ended():
            time.sleep(0.05)
        self._mpi.COMM_WORLD.Abort(self.status)


def fingerprint(array: np.ndarray) -> float:
    """A hash of an array's bytes, as a number that float64 holds exactly."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    digest = hashlib.blake2b(data, digest_size=6)  # type: ignore[arg-type]  # it is a buffer
    return float(int.from_bytes(digest.digest(), "little"))


def require_mpi() -> None:
    """Raise `RuntimeError`, which says what to install, where there is no mpi4py."""
    if importlib.util.find_spec("mpi4py") is None:
        raise RuntimeError(MISSING)


def _mpi() -> Any:
    """mpi4py's module, which starts MPI when it is called, not when it is imported."""
    require_mpi()
    import mpi4py

    if "mpi4py.MPI" not in sys.modules:
        mpi4py.rc.initialize = mpi4py.rc.finalize = False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # mpi4py is there, but no library of MPI
        raise RuntimeError(f"{MISSING} ({error})") from error
    return MPI


def _several(ranks: tuple[int, ...]) -> str:
    numbers = ", ".join(map(str, ranks[:8])) + (" …" if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {numbers}"


_let_others_run: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))
