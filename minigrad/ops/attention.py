"""Scaled dot-product attention (Vaswani et al., arXiv:1706.03762, section 3.2).

    S = scale·q kᵀ,   P = softmax(S) along the keys,   y = P v

Shapes: q (..., Tq, D), k (..., Tk, D), v (..., Tk, Dv), S and P (..., Tq, Tk), y (..., Tq, Dv).
`scale` is 1/√D unless given. With `causal`, a query sees the keys up to its own position; the
queries are the last Tq of the Tk positions, so Tq must not exceed Tk.

Backward, from dy:

    dv = Pᵀ dy,   dP = dy vᵀ,   dS = P·(dP - Σ_keys P·dP),   dq = scale·dS k,   dk = scale·dSᵀ q

P is 0 where a key is masked, and so is dS. Therefore backward needs no mask.

Saved: q, k, v and P.
"""

from math import sqrt

import numpy as np

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.reduce import softmax


class scaled_dot_product_attention(Op):
    """softmax(scale·q kᵀ) v; see the module's docstring"""

    @staticmethod
    def forward(
        xp: Xp, q: Array, k: Array, v: Array, *, causal: bool, scale: float | None = None
    ) -> Result:
        scores = xp.matmul(q, xp.swapaxes(k, -1, -2)) * _scale(q, scale)  # (..., Tq, Tk)
        if causal:
            allowed = causal_mask(xp, q.shape[-2], k.shape[-2])
            lowest = float(np.finfo(scores.dtype).min)  # finite, and e^lowest is 0
            scores = xp.where(allowed, scores, lowest)
        weights, _ = softmax.forward(xp, scores, axis=-1)
        return xp.matmul(weights, v), (q, k, v, weights)

    @staticmethod
    def backward(
        xp: Xp, dy: Array, saved: Saved, needs: Needs, *, causal: bool, scale: float | None = None
    ) -> Gradients:
        q, k, v, weights = saved
        dq = dk = dv = None
        if needs[2]:
            dv = xp.matmul(xp.swapaxes(weights, -1, -2), dy)  # (..., Tk, Dv)
        if needs[0] or needs[1]:
            dweights = xp.matmul(dy, xp.swapaxes(v, -1, -2))  # (..., Tq, Tk)
            (dscores,) = softmax.backward(xp, dweights, weights, (True,), axis=-1)
            dscores = dscores * _scale(q, scale)
            dq = xp.matmul(dscores, k) if needs[0] else None
            dk = xp.matmul(xp.swapaxes(dscores, -1, -2), q) if needs[1] else None
        return dq, dk, dv


def _scale(q: Array, scale: float | None) -> float:
    return 1 / sqrt(q.shape[-1]) if scale is None else scale


def causal_mask(xp: Xp, queries: int, keys: int) -> Array:
    """(Tq, Tk), True where the key is not later than the query."""
    if queries > keys:
        raise ValueError(
            f"causal attention of {queries} queries over {keys} keys: the queries are the last "
            "positions of the keys, so there cannot be more of them"
        )
    positions = xp.arange(queries) + (keys - queries)
    return xp.expand_dims(positions, 1) >= xp.arange(keys)


class multi_head_attention(Op):
    """Self-attention of `num_heads` heads on packed queries, keys and values.

    Shapes: qkv (B, T, 3C) -> (B, T, C), C = H·D. The last axis holds all queries, then all keys,
    then all values, each ordered by head. It is one op so that a kernel need not copy each head.
    """

    @staticmethod
    def forward(xp: Xp, qkv: Array, *, num_heads: int, causal: bool) -> Result:
        parts = split_heads(xp, qkv, num_heads)  # (3, B, H, T, D)
        y, saved = scaled_dot_product_attention.forward(
            xp, parts[0], parts[1], parts[2], causal=causal
        )
        return merge_heads(xp, y), saved

    @staticmethod
    def backward(
        xp: Xp, dy: Array, saved: Saved, needs: Needs, *, num_heads: int, causal: bool
    ) -> Gradients:
        batch, time, channels = dy.shape
        heads = xp.reshape(dy, (batch, time, num_heads, channels // num_heads))
        dy_heads = xp.swapaxes(heads, 1, 2)  # (B, H, T, D)
        gradients = scaled_dot_product_attention.backward(
            xp, dy_heads, saved, (True, True, True), causal=causal
        )
        return (xp.concatenate([merge_heads(xp, g) for g in gradients], axis=-1),)


def split_heads(xp: Xp, qkv: Array, num_heads: int) -> Array:
    """(B, T, 3C) -> (3, B, H, T, D)"""
    batch, time, channels = qkv.shape
    if channels % (3 * num_heads):
        raise ValueError(f"{channels} channels are not 3 times {num_heads} heads of equal size")
    parts = xp.reshape(qkv, (batch, time, 3, num_heads, channels // (3 * num_heads)))
    return xp.transpose(parts, (2, 0, 3, 1, 4))


def merge_heads(xp: Xp, y: Array) -> Array:
    """(B, H, T, D) -> (B, T, H·D)"""
    batch, num_heads, time, head_size = y.shape
    return xp.reshape(xp.swapaxes(y, 1, 2), (batch, time, num_heads * head_size))
