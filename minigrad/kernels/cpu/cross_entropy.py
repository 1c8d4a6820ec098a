"""Softmax and cross-entropy in one. Twin of `minigrad.ops.cross_entropy`.

    loss = -Σ_v q_v·ln softmax(z)_v  for each row of logits z,   q = (1 - ε)·onehot(t) + ε/V

Shapes: logits z (..., V), targets t (...) integers below V. Rows whose target is `ignore_index` are
ignored. `reduction`: "none" (...), "sum", or "mean" over the targets that are not ignored.

In feature-major memory the sum over the vocabulary is one matrix-vector product. With E = exp(z)
and s = Σ_v E the gradient is E·(dloss/s), minus q·dloss. So the softmax itself is never stored, and
the one-hot part changes N elements only. The maximum of each row is not subtracted at first. If the
logits were too large or too small for that, the sums s show it, and E is computed again. A small
loss is the difference of larger numbers, so it is computed again from the other logits.

Saved: E and s, so that backward needs no second exp, and the targets.
"""

from __future__ import annotations

import numpy as np

from minigrad.kernels.cpu.layout import as_feature_major, as_logical, constant
from minigrad.op import Array, Gradients, Needs, Result, Saved

SAFE_SUM = 1e15  # sums of exp(z) in 1/SAFE_SUM..SAFE_SUM: far from the limits of float32

SMALL = 1 / 16  # losses below it are computed once more


def forward(
    logits: Array,
    targets: Array,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Result:
    z = as_feature_major(logits)  # (V, N)
    vocabulary, positions = z.shape
    ids = targets.reshape(-1)
    counts = None  # no target is ignored, the common case
    if (ids == ignore_index).any():
        counts = ids != ignore_index
        ids = np.where(counts, ids, 0)
    if positions and not (ids.min() >= 0 and ids.max() < vocabulary):
        raise IndexError(f"a target is outside of the vocabulary of {vocabulary}")
    columns = np.arange(positions)

    ones = constant(1.0, vocabulary, z.dtype)
    with np.errstate(over="ignore"):
        e = np.exp(z)
        total = np.matmul(ones, e)  # (N,)
        safe = total.min(initial=1) >= 1 / SAFE_SUM and total.max(initial=1) <= SAFE_SUM
    if not safe:  # also if a sum is NaN
        z = z - z.max(axis=0)
        np.exp(z, out=e)
        total = np.matmul(ones, e)

    expected = z[ids, columns]  # Σ_v q_v·z_v
    if label_smoothing:
        expected *= 1 - label_smoothing
        expected += np.matmul(constant(label_smoothing / vocabulary, vocabulary, z.dtype), z)
    loss = np.log(total)
    loss -= expected  # (N,)
    if not label_smoothing:
        _refine(loss, z, ids)
    if counts is not None:
        loss[~counts] = 0
    saved = (e, total, ids, counts, columns, logits.shape)
    if reduction == "none":
        return loss.reshape(logits.shape[:-1]), saved
    summed = loss.sum()
    return summed if reduction == "sum" else summed / _number(counts, loss), saved


def backward(
    dy: Array,
    saved: Saved,
    needs: Needs,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Gradients:
    e, total, ids, counts, columns, shape = saved
    if not needs[0]:
        return None, None
    if reduction == "mean":
        dy = dy / _number(counts, e[0])
    dloss = np.broadcast_to(np.asarray(dy, e.dtype).reshape(-1), total.shape)  # (N,)
    if counts is not None:
        dloss = dloss * counts
    dz = np.multiply(e, dloss / total)  # (V, N)
    if label_smoothing:
        dz -= dloss * (label_smoothing / shape[-1])
    dz[ids, columns] -= (1 - label_smoothing) * dloss
    return as_logical(dz, shape[:-1]), None


def _refine(loss: Array, z: Array, ids: Array) -> None:
    """Compute small losses again, in place: ln s - z_t is a difference of two close numbers.

    Σ_{v≠t} e^(z_v - z_t) is small then, and the loss ln(1 + it) has all its digits.
    """
    columns = np.less(loss, SMALL).nonzero()[0]
    if columns.size:
        targets, places = ids[columns], np.arange(columns.size)
        others = z[:, columns]
        others -= others[targets, places]
        np.exp(others, out=others)
        others[targets, places] = 0
        loss[columns] = np.log1p(np.add.reduce(others, axis=0))


def _number(counts: Array | None, like: Array) -> Array:
    """How many targets are not ignored, in the dtype of `like`."""
    return like.dtype.type(like.size if counts is None else np.count_nonzero(counts))
