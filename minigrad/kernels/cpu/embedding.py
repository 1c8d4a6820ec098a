"""Embedding:  y[...] = W[ids[...]]. Twin of `minigrad.ops.embedding`.

Shapes: weight W (V, C), ids (...) integers below V, y (..., C). This one is not feature-major:
whole rows are copied, and position embeddings in the same order are added faster.

Backward sums the gradients of equal ids. `np.add.at` would do it element by element. Here each
element of the gradient gets a number for its (channel, id), and `np.bincount` adds up elements of
equal numbers in one pass, in float64 and in the order of the text. Only ids that occur are
numbered, so that the cost does not depend on V.

Saved: the ids and the table's shape.
"""

from __future__ import annotations

import numpy as np

from minigrad.kernels.cpu.layout import as_rows
from minigrad.op import Array, Gradients, Needs, Places, Result, Saved


def forward(weight: Array, ids: Array) -> Result:
    return weight[ids], (ids, weight.shape)


def backward(dy: Array, saved: Saved, needs: Needs) -> Gradients:
    return backward_into(dy, saved, needs, (None, None))


def backward_into(dy: Array, saved: Saved, needs: Needs, places: Places) -> Gradients:
    ids, shape = saved
    if not needs[0]:
        return None, None
    dweight = np.empty(shape, dy.dtype) if places[0] is None else places[0]
    dweight[...] = 0
    used, place = np.unique(ids.reshape(-1), return_inverse=True)
    if used.size:
        channels = np.arange(shape[1])[:, None]
        numbers = channels * used.size + place  # (C, N)
        sums = np.bincount(numbers.reshape(-1), as_rows(dy).reshape(-1), channels.size * used.size)
        sums = sums.reshape(-1, used.size).T  # (U, C)
        # Negative ids count from the end, so one row may occur under two of them.
        if used[0] < 0:
            np.add.at(dweight, used, sums)
        else:
            dweight[used] = sums
    return dweight, None
