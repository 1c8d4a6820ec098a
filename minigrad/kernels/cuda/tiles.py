"""How a matmul is divided: into tiles of the result, and into parts of the sum."""

from __future__ import annotations

from minigrad.kernels.cuda.compile import blocks

TILE, THREADS = 64, 256  # as in tiles.cuh and tensor_tiles.cuh
ROWS = 32  # rows of a tile on tensor cores, in kernels that compute a layer in one launch
ENOUGH_BLOCKS = 128  # to fill a large GPU; the same on all GPUs, so that results are the same
PART = 256  # the length of a part of a sum from which a block of its own pays off


def parts_of_sum(length: int, tiles: int) -> tuple[int, int]:
    """The number of parts that a sum of `length` terms is split into, and the length of a part.

    Where the result has few tiles and the sum is long (weight gradients), several blocks compute
    one tile, each a part of the sum.
    """
    parts = min(blocks(length, PART), max(1, ENOUGH_BLOCKS // max(1, tiles)))
    part = max(32, blocks(blocks(length, max(1, parts)), 32) * 32)
    return max(1, blocks(length, part)), part
