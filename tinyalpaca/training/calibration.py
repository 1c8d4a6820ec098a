"""How many sequences a micro-batch should have, by measurement.

Larger micro-batches spend less time in Python and have faster matmuls, until activations no longer
fit the cache or there are too few micro-batches for the workers. The best size depends on the
processor. Here it is measured once, for a fraction of a second, and then remembered in a file.
Since the size affects the last bits of a run, this is done only on request.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from math import ceil, log2
from pathlib import Path

from minigrad.storage import write_text_atomically

ROUNDS, MANY = 3, 10  # at least, if they fit in ENOUGH, and at most
ENOUGH = 8.0  # seconds after which no round begins
FEW = 1.5  # seconds that are worth more rounds, and no size larger than one in vain
DOUBLING = 0.965  # twice the size, and memory, must take less than this share of the time


def choose_micro_batch(
    run: Callable[[int], object], batch_size: int, workers: int, *, lanes: int = 8
) -> int:
    """The micro-batch size with which a batch should take the least time.

    Memory grows with the size, so a size that is hardly faster than half of it is not chosen.

    Args:
        run: computes a micro-batch of so many sequences.
        batch_size: sequences of a batch.
        workers: how many share it.
        lanes: the largest number of gradient accumulators (see `minigrad.parallel.engine`).
    """
    seconds: dict[int, float] = {}  # the shortest of the rounds: what disturbs only ever adds
    start = time.perf_counter()

    def spent() -> float:
        return time.perf_counter() - start

    def measure(size: int) -> None:
        began = time.perf_counter()
        run(size)
        took = time.perf_counter() - began
        seconds[size] = min(took, seconds.get(size, took))

    def cost(size: int) -> float:
        micro_batches = ceil(batch_size / size)
        in_a_lane = ceil(micro_batches / min(lanes, micro_batches))
        lanes_a_worker = ceil(ceil(micro_batches / in_a_lane) / workers)
        return seconds[size] * in_a_lane * lanes_a_worker / DOUBLING ** log2(size)

    def behind(size: int, factor: float) -> bool:
        return cost(size) > factor * min(map(cost, seconds))

    for size in _candidates(batch_size):
        impatient = spent() > FEW
        run(size)  # to warm up
        measure(size)
        if impatient and behind(size, 1):
            break
        if behind(size, 2):
            measure(size)
            if behind(size, 2):
                break  # larger ones leave workers without work, or the cache
    rounds = 1  # of all sizes in turn: a machine is slow for a while
    while rounds < MANY and spent() < (ENOUGH if rounds < ROUNDS else FEW):
        for size in seconds:
            measure(size)
        rounds += 1
    return min(seconds, key=cost)


def _candidates(batch_size: int) -> Iterator[int]:
    """1, 2, 4, ... and even shares of the batch, in ascending order."""
    sizes = {2**k for k in range(batch_size.bit_length()) if 2**k <= batch_size}
    sizes |= {ceil(batch_size / parts) for parts in (2, 3, 4, 6, 8)}
    yield from sorted(sizes)


def remembered(path: Path, key: str, measure: Callable[[], int]) -> int:
    """The number under `key` in `path` (JSON), or else a new measurement, which is written there.

    If the file cannot be read or written, the next run measures again; training goes ahead.
    """
    known: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {str(k): int(v) for k, v in content.items() if int(v) > 0}
    if key not in known:
        known[key] = measure()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text_atomically(path, json.dumps(known, indent=2) + "\n")
    return known[key]
