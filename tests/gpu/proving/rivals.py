"""Contenders that do the same work in turns, each in its own process.

One that fails or does not answer is dropped, and the reason is kept; the others continue.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from statistics import median, quantiles
from typing import Any, NamedTuple


class Rival(NamedTuple):
    """A contender: `factory` is "module:class", called with `options` in its process."""

    name: str
    factory: str
    options: dict[str, Any]


class Rivals:
    """Starts the processes. Use as a context manager.

    Attributes:
        out: name -> the reason why that contender was dropped.
    """

    def __init__(self, rivals: Sequence[Rival]) -> None:
        self.out: dict[str, str] = {}
        self._pipes: dict[str, Any] = {}
        self._processes: dict[str, Any] = {}
        context = multiprocessing.get_context("spawn")
        for rival in rivals:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rival.factory, rival.options))
            process.start()
            theirs.close()
            self._pipes[rival.name], self._processes[rival.name] = ours, process

    @property
    def names(self) -> list[str]:
        """The contenders that have not been dropped."""
        return [name for name in self._pipes if name not in self.out]

    def one(self, name: str, method: str, *args: Any, seconds: float = 60) -> Any:
        """Call a method of one contender and return its result; None if it was dropped."""
        if self._ask(name, method, args):
            return self._answer(name, time.monotonic() + seconds)
        return None

    def all(self, method: str, *args: Any, seconds: float = 60) -> dict[str, Any]:
        """Call a method of all contenders at the same time; returns the results by name."""
        asked = [name for name in self.names if self._ask(name, method, args)]
        deadline = time.monotonic() + seconds
        results = {name: self._answer(name, deadline) for name in asked}
        return {name: result for name, result in results.items() if name not in self.out}

    def drop(self, name: str, why: str) -> None:
        """Drop a contender for a reason."""
        self.out[name] = why
        process = self._processes[name]
        if process.is_alive():
            process.kill()

    def _ask(self, name: str, method: str, args: tuple[Any, ...]) -> bool:
        if name in self.out:
            return False
        try:
            self._pipes[name].send((method, args))
        except OSError:  # it has ended, and may have sent the reason
            self._answer(name, time.monotonic() + 1)
            return False
        return True

    def _answer(self, name: str, deadline: float) -> Any:
        pipe = self._pipes[name]
        try:
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                self.drop(name, "no answer in time")
                return None
            kind, value = pipe.recv()
        except (EOFError, OSError):
            self.drop(name, "its process has ended")
            return None
        if kind == "error":
            self.drop(name, value)
            return None
        return value

    def __enter__(self) -> Rivals:
        return self

    def __exit__(self, *error: object) -> None:
        for name, process in self._processes.items():
            self._pipes[name].close()
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(pipe: Any, factory: str, options: dict[str, Any]) -> None:
    """The program of a contender's process: runs calls until the pipe is closed."""
    try:
        module, _, name = factory.partition(":")
        rival = getattr(importlib.import_module(module), name)(**options)
        while True:
            try:
                method, args = pipe.recv()
            except EOFError:
                break
            pipe.send(("result", getattr(rival, method)(*args)))
    except BaseException:
        with suppress(OSError):
            pipe.send(("error", traceback.format_exc()[-1500:]))
    pipe.close()
    os.kill(os.getpid(), signal.SIGKILL)  # a broken device could hang a normal exit


def take_turns(
    rivals: Rivals,
    names: Sequence[str],
    rounds: int,
    seconds: float,
    most: int,
    turn: float = 0.08,
) -> dict[str, list[float]]:
    """The seconds per step of each contender, one number for each round.

    A contender has a method `turn(steps)`, which makes so many steps and returns the seconds per
    step. In each round every contender makes as many steps as take about `turn` seconds.

    Args:
        names: the contenders.
        rounds: the number of rounds; fewer are made if the time is over.
        seconds: the time after which to stop, but at least two rounds are made.
        most: the largest number of steps in a turn.
    """
    began, counts = time.monotonic(), {}
    for name in names:
        guess = rivals.one(name, "turn", 2)
        if guess is not None:
            counts[name] = int(min(most, max(2, turn / max(guess, 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in counts}
    for number in range(rounds):
        if number >= 2 and time.monotonic() - began > seconds:
            break
        still = [name for name in counts if name not in rivals.out]
        first = number % max(1, len(still))
        for name in still[first:] + still[:first]:
            step = rivals.one(name, "turn", counts[name])
            if step is not None:
                times[name].append(step)
    return {name: found for name, found in times.items() if name not in rivals.out and found}


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles, in milliseconds."""
    low, _, high = quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return {"median": 1e3 * median(seconds), "q1": 1e3 * low, "q3": 1e3 * high}
