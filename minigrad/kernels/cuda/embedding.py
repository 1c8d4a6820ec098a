"""Embeddings, with or without positions. Twins of those in `minigrad.ops.embedding`.

    y[..., t] = W[ids[..., t]] + P[t]

Shapes: weight W (V, C), positions P (L, C) or none, ids (..., T) integers (int32 or int64) in
[0, V), T up to L, y (..., T, C). Ids are checked before they go to the GPU. In these kernels an id
that is out of range gives NaN; no memory outside of the table is read.

Backward of a small table is one launch: one block for each row of dW, which searches all positions
for its id, and one for each row of dP. Backward of a large table has one block for each position;
the block at the first position of an id sums that id's row. Then only zeroing dW takes time that
grows with V. All sums have a fixed order and use no atomics.

Saved: the ids and the tables' shapes.
"""

from __future__ import annotations

from typing import Any

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, dense, element_blocks, id_of, one_dtype, real_of
from minigrad.kernels.cuda.support import of_floats, of_ids
from minigrad.op import Array, Gradients, Needs, Places, Result, Saved, Shape

SOURCE = Source(
    "embedding",
    "embedding_forward<{real}, {id}>",
    "embedding_backward_rows<{real}, {id}>",
    "embedding_backward<{real}, {id}>",
)
THREADS = 256
SMALL = 1024  # a table with up to this many rows is small; estimated, not measured


def supports(weight: Array, ids: Array) -> str | None:
    return of_floats(weight) or of_ids(ids)


def forward(weight: Array, ids: Array) -> Result:
    return _look_up(weight, None, dense(ids)), (ids, weight.shape)


def backward(dy: Array, saved: Saved, needs: Needs) -> Gradients:
    return backward_into(dy, saved, needs, (None, None))


def backward_into(dy: Array, saved: Saved, needs: Needs, places: Places) -> Gradients:
    ids, shape = saved
    dweight, _ = _gradients(dense(dy), dense(ids), shape, None, needs[:1], places[:1])
    return dweight, None


class embedding_with_positions:
    """The same, plus a vector for each position."""

    @staticmethod
    def supports(weight: Array, positions: Array, ids: Array) -> str | None:
        return of_floats(weight, positions) or of_ids(ids)

    @staticmethod
    def forward(weight: Array, positions: Array, ids: Array) -> Result:
        ids = dense(ids)
        if positions.ndim != 2 or not ids.ndim or ids.shape[-1] > len(positions):
            raise ValueError(f"{ids.shape} positions, and a table of positions {positions.shape}")
        if positions.shape[1:] != weight.shape[1:]:
            raise ValueError(f"tables of shapes {weight.shape} and {positions.shape}")
        y = _look_up(weight, dense(positions), ids)
        return y, (ids, weight.shape, positions.shape)

    @staticmethod
    def backward(dy: Array, saved: Saved, needs: Needs) -> Gradients:
        return embedding_with_positions.backward_into(dy, saved, needs, (None, None, None))

    @staticmethod
    def backward_into(dy: Array, saved: Saved, needs: Needs, places: Places) -> Gradients:
        ids, shape, positions = saved
        return *_gradients(dense(dy), ids, shape, positions, needs[:2], places[:2]), None


def _look_up(weight: Array, positions: Array, ids: Array) -> Array:
    if weight.ndim != 2:
        raise ValueError(f"the table must be (V, C), not {weight.shape}")
    vocabulary, channels = weight.shape
    dtype = one_dtype("embedding", weight, positions)
    y = cupy().empty((*ids.shape, channels), dtype)
    SOURCE.launch(
        f"embedding_forward<{real_of(dtype)}, {id_of(ids.dtype)}>",
        (element_blocks(y.size),),
        (THREADS,),
        *(dense(weight), positions, ids, y, ids.size, channels, vocabulary, _time(ids)),
        dtype=dtype,
    )
    return y


def _gradients(
    dy: Array, ids: Array, shape: Shape, positions_shape: Shape | None, needs: Needs, places: Places
) -> Gradients:
    """dW and dP, or None for what is not needed."""
    vocabulary, channels = shape
    made: list[Any] = [None, None]
    for i, (need, of) in enumerate(zip(needs, (shape, positions_shape), strict=False)):
        if need:
            made[i] = cupy().empty(of, dy.dtype) if places[i] is None else places[i]
    dweight, dpositions = made
    suffix = f"<{real_of(dy.dtype)}, {id_of(ids.dtype)}>"
    if dweight is not None and vocabulary > SMALL:
        dweight[...] = 0
        SOURCE.launch(
            f"embedding_backward{suffix}",
            (ids.size,),
            (THREADS,),
            *(dy, ids, dweight, ids.size, channels, vocabulary),
            dtype=dy.dtype,
        )
        dweight = None
    rows = sum([len(table) for table in (dweight, dpositions) if table is not None])
    SOURCE.launch(
        f"embedding_backward_rows{suffix}",
        (rows,),
        (THREADS,),
        *(dy, ids, dweight, dpositions, ids.size, channels, vocabulary, _time(ids)),
        dtype=dy.dtype,
    )
    return tuple(made)


def _time(ids: Array) -> int:
    """The length of a sequence, but at least 1, because kernels divide by it."""
    return max(1, ids.shape[-1]) if ids.ndim else 1
