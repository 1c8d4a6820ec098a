"""How a matrix product is cut: tiles of the result, and parts of what is summed over."""

from __future__ import annotations

from minigrad.kernels.cuda.compile import blocks

TILE, THREADS = 64, 256  # of tiles.cuh and tensor_tiles.cuh
ROWS = 32  # of tiles on tensor cores where a layer is one launch
ENOUGH_BLOCKS = 128  # for the larger GPUs; the same on all, so that results are
PART = 256  # the shortest part of a sum that is worth a block of its own


def parts_of_sum(length: int, tiles: int) -> tuple[int, int]:
    """How many parts a sum of `length` products is cut into, and how long a part is.

    Where the result has few tiles and the sum is long (weight gradients), each tile has several
    blocks, one for each part.
    """
    parts = min(blocks(length, PART), max(1, ENOUGH_BLOCKS // max(1, tiles)))
    part = max(32, blocks(blocks(length, max(1, parts)), 32) * 32)
    return max(1, blocks(length, part)), part
