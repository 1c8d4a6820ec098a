"""Embedding:  y[...] = W[ids[...]], a row of the table for each id.

Shapes: weight W (V, C), ids (...) integers below V, y (..., C).

A row gets the sum of the gradients of all places where its id stands:

    dW[v] = Σ dy[i] over the places i with ids[i] = v

Saved: the ids and the table's shape.
"""

from minigrad.op import Op
from minigrad.ops.special import scatter_add


class embedding(Op):
    """y[...] = W[ids[...]]; see the module's docstring"""

    @staticmethod
    def forward(xp, weight, ids):
        return weight[ids], (ids, weight.shape)

    @staticmethod
    def backward(xp, dy, saved, needs):
        ids, shape = saved
        return scatter_add(xp, dy, ids, shape) if needs[0] else None, None
