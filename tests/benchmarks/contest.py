"""Times contenders fairly on a noisy machine.

Each contender has its own process, so that no runtime's threads or memory disturb another's. They
take turns: A B A B ... A turn is a few calls in a row. The first call of a turn is not counted,
because caches still have the other's data and the other's threads may still spin, which does not
happen in training. Results are medians over all turns and ratios of medians; the quartiles show how
noisy the machine was. `memory_watch` measures memory.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import time
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import Any


@dataclass
class Contender:
    """Something to time.

    Args:
        name: for tables.
        factory: "module:function", called with `options` in the contender's process; returns an
            object whose methods are timed.
        options: keyword arguments of the factory.
    """

    name: str
    factory: str
    options: dict[str, Any] = field(default_factory=dict)


class Contest:
    """Starts the contenders' processes and lets them take turns. Use as a context manager."""

    def __init__(self, contenders: list[Contender]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: dict[str, Any] = {}
        self._processes: dict[str, Any] = {}
        for contender in contenders:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, contender.factory, contender.options)
            )
            process.start()
            theirs.close()
            self._pipes[contender.name], self._processes[contender.name] = ours, process
            self._answer(contender.name)

    def call(self, name: str, method: str, *args: Any) -> Any:
        """Call a method of one contender; returns its result."""
        return self._ask(name, "call", method, args)

    def times(self, method: str, rounds: int, turn: int = 3) -> dict[str, list[float]]:
        """Seconds per call, by contender: `rounds` turns of `turn` calls, after a warm-up turn."""
        result: dict[str, list[float]] = {name: [] for name in self._pipes}
        for number in range(rounds + 1):
            for name in self._pipes:
                seconds = self._ask(name, "time", method, turn)
                if number:
                    result[name] += seconds
        return result

    def peak_mb(self, method: str, calls: int = 4) -> dict[str, float]:
        """Peak memory in MB while a method runs, for each contender.

        This is measured separately, because reading the memory of a process slows it down. It needs
        psutil, which the rest of this file does not.
        """
        from tests.benchmarks.memory_watch import MemoryWatch

        peaks: dict[str, float] = {}
        for name, process in self._processes.items():
            with MemoryWatch(process.pid) as memory:
                self._ask(name, "time", method, calls)
            peaks[name] = memory.peak_mb
        return peaks

    def _ask(self, name: str, *request: Any) -> Any:
        self._pipes[name].send(request)
        return self._answer(name)

    def _answer(self, name: str) -> Any:
        try:
            kind, value = self._pipes[name].recv()
        except EOFError:
            raise RuntimeError(f"the contender {name!r} has died") from None
        if kind == "error":
            raise RuntimeError(f"the contender {name!r} failed:\n{value}")
        return value

    def __enter__(self) -> Contest:
        return self

    def __exit__(self, *error: object) -> None:
        for name, process in self._processes.items():
            self._pipes[name].close()
            process.join(10)
            if process.is_alive():
                process.kill()


def _serve(pipe: Any, factory: str, options: dict[str, Any]) -> None:
    import traceback

    try:
        module, _, function = factory.partition(":")
        contender = getattr(importlib.import_module(module), function)(**options)
        pipe.send(("ready", None))
        while True:
            try:
                kind, method, argument = pipe.recv()
            except EOFError:
                break
            call = getattr(contender, method)
            if kind == "call":
                pipe.send(("result", call(*argument)))
                continue
            seconds = []
            call()
            for _ in range(argument):
                began = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - began)
            pipe.send(("result", seconds))
        close = getattr(contender, "close", None)
        if close is not None:
            close()
    except BaseException:
        pipe.send(("error", traceback.format_exc()))


def require(against: str) -> None:
    """Exit with a message if the peer's library is not installed."""
    if against != "none" and importlib.util.find_spec(against) is None:
        extra = "jax" if against == "jax" else '-e ".[bench]"'
        raise SystemExit(f"{against} is not installed; use --against none, or pip install {extra}")


def require_equal(losses: dict[str, float]) -> None:
    """Exit with a message if contenders compute different losses: times would mean nothing."""
    first = next(iter(losses.values()))
    if not all(isclose(loss, first, rel_tol=1e-4) for loss in losses.values()):
        raise SystemExit(f"the contenders do not compute the same loss: {losses}")


def figures(
    workload: str,
    ours: list[float],
    peer: list[float] | None,
    ours_mb: float,
    peer_mb: float | None,
) -> dict[str, Any]:
    """A benchmark's record, from seconds and peak memory; without a peer its part is left out."""
    record: dict[str, Any] = {"workload": workload, **compared(ours, peer)}
    record |= {"ours_mb": ours_mb, "ours_spread_ms": summary(ours)}
    if peer is not None and peer_mb is not None:
        record |= {"peer_mb": peer_mb, "peer_spread_ms": summary(peer)}
        record["memory_ratio"] = ours_mb / peer_mb
    return record


def compared(ours: list[float], peer: list[float] | None) -> dict[str, float]:
    """The medians in milliseconds, and the peer's divided by ours: above 1 ours is faster."""
    record = {"ours_ms": 1e3 * statistics.median(ours)}
    if peer is not None:
        record["peer_ms"] = 1e3 * statistics.median(peer)
        record["ratio"] = record["peer_ms"] / record["ours_ms"]
    return record


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles, in milliseconds."""
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return {name: 1e3 * q for name, q in zip(("q1", "median", "q3"), quartiles, strict=True)}


def machine() -> dict[str, Any]:
    """The machine on which the numbers were measured."""
    import numpy

    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "system": platform.system(),
        "date": time.strftime("%Y-%m-%d"),
    }


def table(rows: list[list[str]]) -> str:
    """A table with aligned columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(
        line.rstrip() for line in [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]
    )


def write_json(path: str | None, record: dict[str, Any]) -> None:
    """Write a benchmark's record, with the machine, if a path is given."""
    if path:
        text = json.dumps({**record, "machine": machine()}, indent=2)
        Path(path).write_text(text + "\n", encoding="utf-8")
