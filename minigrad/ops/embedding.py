"""Embedding:  y[...] = W[ids[...]], a row of the table for each id.

Shapes: weight W (V, C), ids (...) integers below V, y (..., C).

The gradient of a row is the sum over all positions that hold its id:

    dW[v] = Σ dy[i] over the positions i with ids[i] = v

Saved: the ids and the table's shape.

`embedding_with_positions` adds row t of a second table, P (L, C), at position t of a sequence:

    y[..., t] = W[ids[..., t]] + P[t],   dP[t] = Σ dy[..., t] over all sequences, 0 for t >= T
"""

from math import prod

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.special import scatter_add
from minigrad.ops.summation import sum_of


class embedding(Op):
    """y[...] = W[ids[...]]; see the module's docstring"""

    @staticmethod
    def forward(xp: Xp, weight: Array, ids: Array) -> Result:
        return weight[ids], (ids, weight.shape)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs) -> Gradients:
        ids, shape = saved
        return scatter_add(xp, dy, ids, shape) if needs[0] else None, None


class embedding_with_positions(Op):
    """y[..., t] = W[ids[..., t]] + P[t]"""

    @staticmethod
    def forward(xp: Xp, weight: Array, positions: Array, ids: Array) -> Result:
        time = ids.shape[-1]
        return weight[ids] + positions[:time], (ids, weight.shape, positions.shape)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs) -> Gradients:
        ids, shape, (length, channels) = saved
        dweight = scatter_add(xp, dy, ids, shape) if needs[0] else None
        dpositions = None
        if needs[1]:
            time = ids.shape[-1]
            sequences = xp.reshape(dy, (prod(ids.shape[:-1]), time, channels))
            dpositions = xp.pad(sum_of(xp, sequences, 0), ((0, length - time), (0, 0)))
        return dweight, dpositions, None
