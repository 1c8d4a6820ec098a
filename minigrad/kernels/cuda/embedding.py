"""Embedding:  y[...] = W[ids[...]]. Twin of `minigrad.ops.embedding`.

Shapes: weight W (V, C), ids (...) integers (int32 or int64) in [0, V), y (..., C). Ids are checked
before they go to the GPU; one that is out of range gives NaN here, never other memory.

Backward gives each id to the block at its first position, which adds up the gradients of all its
positions in their order: no atomics, and no cost that grows with V but zeroing dW.

Saved: the ids and the table's shape.
"""

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import (
    Source,
    blocks,
    dense,
    element_blocks,
    id_of,
    real_of,
)
from minigrad.kernels.cuda.support import of_floats, of_ids

SOURCE = Source("embedding", "embedding_forward<{real}, {id}>", "embedding_backward<{real}, {id}>")
THREADS = 256


def supports(weight, ids):
    return of_floats(weight) or of_ids(ids)


def forward(weight, ids):
    ids = dense(ids)
    if weight.ndim != 2:
        raise ValueError(f"the table must be (V, C), not {weight.shape}")
    vocabulary, channels = weight.shape
    y = cupy().empty((*ids.shape, channels), weight.dtype)
    SOURCE.launch(
        f"embedding_forward<{real_of(weight.dtype)}, {id_of(ids.dtype)}>",
        (element_blocks(y.size),),
        (THREADS,),
        *(dense(weight), ids, y, ids.size, channels, vocabulary),
        dtype=weight.dtype,
    )
    return y, (ids, weight.shape)


def backward(dy, saved, needs):
    return backward_into(dy, saved, needs, (None, None))


def backward_into(dy, saved, needs, places):
    ids, shape = saved
    if not needs[0]:
        return None, None
    vocabulary, channels = shape
    if places[0] is None:
        dweight = cupy().zeros(shape, dy.dtype)
    else:
        dweight = places[0]
        dweight[...] = 0
    SOURCE.launch(
        f"embedding_backward<{real_of(dy.dtype)}, {id_of(ids.dtype)}>",
        (ids.size, blocks(channels, 32)),
        (THREADS,),
        *(dense(dy), ids, dweight, ids.size, channels, vocabulary),
        dtype=dy.dtype,
    )
    return dweight, None
