"""How a batch is cut into micro-batches, and these into lanes. Nothing here depends on workers.

Floating-point sums depend on their order. So that a run gives the same numbers whatever the number
of workers, each lane (a fixed, contiguous share of the micro-batches) adds up its own gradient, in
order, in a buffer of its own, and the lanes' buffers are added in order. A worker takes whole
lanes.
"""

from __future__ import annotations

from itertools import pairwise

MAX_LANES = 8
MICRO_KEYS = 2**20  # keys that an engine has for the micro-batches of one call
LANE_MEMORY = 256 * 2**20  # bytes that the lanes' gradient buffers may take together


def number_of_lanes(parameter_bytes: int) -> int:
    """Lanes for a model: as many as fit the memory, a power of two from 2 to 8."""
    lanes = MAX_LANES
    while lanes > 2 and lanes * parameter_bytes > LANE_MEMORY:
        lanes //= 2
    return lanes


def cut(batch_size: int, micro_batch_size: int, lanes: int) -> list[list[slice]]:
    """The micro-batches of each lane, as slices of the batch. Lanes without any are left out.

    >>> cut(10, 3, 2)
    [[slice(0, 3, None), slice(3, 6, None)], [slice(6, 9, None), slice(9, 10, None)]]
    """
    starts = list(range(0, batch_size, micro_batch_size))
    micro = [slice(start, min(start + micro_batch_size, batch_size)) for start in starts]
    lanes = min(lanes, len(micro))
    bounds = [len(micro) * lane // max(lanes, 1) for lane in range(lanes + 1)]
    return [micro[a:b] for a, b in pairwise(bounds)]
