"""Softmax and cross-entropy in one:  loss = -Σ_v q_v·ln softmax(z)_v  for each row of logits z.

Shapes: logits z (..., V), targets t (...) integers below V. The target distribution is
q = (1 - ε)·onehot(t) + ε/V, with label smoothing ε (Szegedy et al., arXiv:1512.00567). A row whose
target is `ignore_index` is ignored: its loss and gradient are 0. `reduction` "none" gives the rows'
losses (...), "sum" their sum, "mean" their mean over the targets that are not ignored.

Softmax and loss are one op, so no probability, which may be 0, is divided by. With p = softmax(z),

    dz = (p - q)·dloss     (for "mean" divided by the number of targets that are not ignored)

Saved: ln p, from which p follows, and the targets.
"""

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.reduce import log_softmax
from minigrad.ops.summation import mean_of, sum_of


class cross_entropy(Op):
    """-Σ q·ln softmax(z); see the module's docstring"""

    @staticmethod
    def forward(
        xp: Xp, logits: Array, targets: Array, *,
        ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean",
    ) -> Result:  # fmt: skip
        vocabulary = logits.shape[-1]
        log_p, _ = log_softmax.forward(xp, xp.reshape(logits, (-1, vocabulary)), axis=-1)  # (N, V)
        ids, counts = _flat_targets(xp, targets, ignore_index)
        loss = -log_p[xp.arange(ids.shape[0]), ids]  # (N,)
        if label_smoothing:
            uniform = -mean_of(xp, log_p, -1)
            loss = (1 - label_smoothing) * loss + label_smoothing * uniform
        loss = xp.where(counts, loss, 0)
        saved = (log_p, ids, counts, logits.shape)
        if reduction == "none":
            return xp.reshape(loss, logits.shape[:-1]), saved
        total = sum_of(xp, loss)
        return total if reduction == "sum" else total / _number(xp, counts, log_p), saved

    @staticmethod
    def backward(
        xp: Xp, dy: Array, saved: Saved, needs: Needs, *,
        ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean",
    ) -> Gradients:  # fmt: skip
        log_p, ids, counts, shape = saved
        vocabulary = shape[-1]
        q = (xp.expand_dims(ids, 1) == xp.arange(vocabulary)).astype(log_p.dtype)  # (N, V)
        if label_smoothing:
            q = (1 - label_smoothing) * q + label_smoothing / vocabulary
        if reduction == "none":
            dy = xp.reshape(dy, (-1, 1))  # (N, 1)
        elif reduction == "mean":
            dy = dy / _number(xp, counts, log_p)
        dz = xp.where(xp.expand_dims(counts, 1), (xp.exp(log_p) - q) * dy, 0)
        return xp.reshape(dz, shape), None


def _flat_targets(xp: Xp, targets: Array, ignore_index: int) -> tuple[Array, Array]:
    """Targets as (N,), with 0 for ignored ones, and a mask of those that are not ignored."""
    ids = xp.reshape(targets, (-1,))
    counts = ids != ignore_index
    return xp.where(counts, ids, 0), counts


def _number(xp: Xp, counts: Array, like: Array) -> Array:
    """How many targets are not ignored, in the dtype of `like`."""
    return xp.sum(counts).astype(like.dtype)
