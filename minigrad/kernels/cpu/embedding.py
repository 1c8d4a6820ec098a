"""Embedding:  y[...] = W[ids[...]]. Twin of `minigrad.ops.embedding`.

Shapes: weight W (V, C), ids (...) integers below V, y (..., C).

Backward sums the gradients of equal ids. `np.add.at` would do it element by element; sorting the
positions by id puts equal ids side by side, and `np.add.reduceat` sums each run as whole rows. The
sort is stable, so the order of summation is that of the text.

Saved: the ids and the table's shape.
"""

import numpy as np

from minigrad.kernels.cpu.layout import as_logical


def forward(weight, ids):
    rows = np.ascontiguousarray(weight[ids.reshape(-1)].T)  # (C, N)
    return as_logical(rows, ids.shape), (ids, weight.shape)


def backward(dy, saved, needs):
    ids, shape = saved
    if not needs[0]:
        return None, None
    dweight = np.zeros(shape, dy.dtype)
    flat = ids.reshape(-1) % shape[0]  # negative ids count from the end
    if flat.size:
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        gradients = dy.reshape(-1, shape[1])[order]  # (N, C), equal ids side by side
        dweight[ordered[starts]] = np.add.reduceat(gradients, starts, axis=0)
    return dweight, None
