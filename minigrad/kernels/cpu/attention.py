"""Scaled dot-product attention. Twin of `minigrad.ops.attention`.

    S = scale·q kᵀ,   P = softmax(S) along the keys,   y = P v

Shapes: q (..., Tq, D), k (..., Tk, D), v (..., Tk, Dv), y (..., Tq, Dv).

Matrix products are cheap here, passes over the (Tq, Tk) scores are not. Hence:

- Scores are stored keys × queries, so that per-query numbers are rows, and `scale` is folded into q.
- Keys are cut into blocks. A block's scores are computed only for the queries that may see one of
  its keys. All blocks of a head lie one after another, so that exp, the causal mask and the product
  dP·P are one call each on one flat array.
- E = exp(S) is not normalised. v gets a row of ones below it, so that one product gives both v E
  and the sums l = Σ_keys E, and y = (v E)/l is a pass over (Tq, Dv) only.
- The row maximum is subtracted only if the scores could be large: |S| ≤ max|q|·max|k| costs a pass
  over q and k, the maximum one over S.
- Backward, with dy' = dy/l and δ' = Σ_d dy'·y, needs

      dv = dy' Eᵀ,   dS = E·(vᵀ dy' - δ'),   dq = scale·k dS,   dk = q dSᵀ·scale

  where -δ' is a row below dy' that meets v's row of ones: the subtraction costs no pass either.

Saved: q·scale, k, v with ones, E (so that backward has no exp), 1/l and y.
"""

from functools import lru_cache
from math import prod, sqrt

import numpy as np

from minigrad.kernels.cpu.scratch import scratch

KEYS = (
    64  # keys in a block: smaller blocks skip more of the scores, larger ones have faster products
)
SAFE_SCORE = 60.0  # exp(±60) and sums and products of such numbers are far from float32's limits


def forward(q, k, v, *, causal, scale=None):
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    queries, keys, values = (
        np.broadcast_to(x, lead + x.shape[-2:]).swapaxes(-1, -2) for x in (q, k, v)
    )
    out = _empty_heads(lead, v.shape[-1], q.shape[-2], q.dtype)
    saved = _forward(queries, keys, values, out, causal, scale)
    return out.swapaxes(-1, -2), saved


def backward(dy, saved, needs, *, causal, scale=None):
    q, k, v = saved[:3]
    lead = q.shape[:-2]
    dq = _empty_heads(lead, q.shape[-2], q.shape[-1], q.dtype) if needs[0] else None
    dk = _empty_heads(lead, k.shape[-2], k.shape[-1], q.dtype) if needs[1] else None
    dv = _empty_heads(lead, v.shape[-2] - 1, v.shape[-1], q.dtype) if needs[2] else None
    _backward(dy.swapaxes(-1, -2), saved, dq, dk, dv, causal)
    if dq is not None:
        dq *= _scale(q, scale)
    return tuple(None if g is None else g.swapaxes(-1, -2) for g in (dq, dk, dv))


class multi_head_attention:
    """Self-attention of `num_heads` heads on packed queries, keys and values.

    Shapes: qkv (B, T, 3C) -> (B, T, C), C = H·D. In feature-major memory the queries of a head are
    D rows of the array, and BLAS reads and writes them where they are.
    """

    @staticmethod
    def forward(qkv, *, num_heads, causal):
        batch, time, channels = qkv.shape
        if channels % (3 * num_heads):
            raise ValueError(f"{channels} channels are not 3 times {num_heads} heads of equal size")
        parts = qkv.reshape(batch, time, 3, num_heads, channels // (3 * num_heads))
        q, k, v = parts.transpose(2, 3, 0, 4, 1)  # each (H, B, D, T)
        out, heads = _empty_packed(batch, time, channels // 3, num_heads, qkv.dtype)
        return out, _forward(q, k, v, heads, causal, None)

    @staticmethod
    def backward(dy, saved, needs, *, num_heads, causal):
        batch, time, channels = dy.shape
        dqkv, heads = _empty_packed(batch, time, 3 * channels, 3 * num_heads, dy.dtype)
        dy_heads = dy.reshape(batch, time, num_heads, -1).transpose(2, 0, 3, 1)  # (H, B, D, T)
        dq, dk, dv = heads.reshape(3, num_heads, *heads.shape[1:])
        _backward(dy_heads, saved, dq, dk, dv, causal)
        dqkv[..., :channels] *= _scale(dq, None)
        return (dqkv,)


def _forward(q, k, v, out, causal, scale):
    """Attention of q, k (..., D, T) and v (..., Dv, T) into `out` (..., Dv, Tq)."""
    lead, dtype = q.shape[:-2], q.dtype
    plan = block_plan(q.shape[-1], k.shape[-1], causal, dtype)
    q = q * dtype.type(_scale(q, scale))
    v_ones = np.empty((*lead, v.shape[-2] + 1, v.shape[-1]), dtype)
    v_ones[..., :-1, :] = v
    v_ones[..., -1, :] = 1

    weights = np.empty((*lead, plan.size), dtype)
    blocks = plan.split(weights)
    for (k0, k1, q0), block in zip(plan.blocks, blocks, strict=True):
        np.matmul(k[..., k0:k1].swapaxes(-1, -2), q[..., q0:], out=block)  # (..., keys, queries)
    if _largest_score(q, k) <= SAFE_SCORE:
        np.exp(weights, out=weights)
        if causal:
            weights *= plan.allowed
    else:
        _stable_exp(weights, blocks, plan, causal)

    total = scratch("total", (*lead, v_ones.shape[-2], q.shape[-1]), dtype)
    _sum_over_keys(v_ones, blocks, plan, total)
    inverse_sum = 1 / total[..., -1:, :]  # (..., 1, Tq)
    np.multiply(total[..., :-1, :], inverse_sum, out=out)
    return q, k, v_ones, weights, inverse_sum, out


def _backward(dy, saved, dq, dk, dv, causal):
    """Write the gradients, from dy (..., Dv, Tq); dq still lacks the factor `scale`."""
    q, k, v_ones, weights, inverse_sum, out = saved
    plan = block_plan(q.shape[-1], k.shape[-1], causal, q.dtype)
    size = out.shape[-2]
    dy_delta = scratch("dy_delta", (*out.shape[:-2], size + 1, out.shape[-1]), q.dtype)
    dy_scaled = np.multiply(dy, inverse_sum, out=dy_delta[..., :size, :])
    np.negative(np.einsum("...dt,...dt->...t", dy_scaled, out), out=dy_delta[..., size, :])

    blocks = plan.split(weights)
    if dv is not None:
        for (k0, k1, q0), block in zip(plan.blocks, blocks, strict=True):
            np.matmul(dy_scaled[..., q0:], block.swapaxes(-1, -2), out=dv[..., k0:k1])
    if dq is None and dk is None:
        return
    dscores = scratch("dscores", weights.shape, q.dtype)
    dblocks = plan.split(dscores)
    for (k0, k1, q0), dblock in zip(plan.blocks, dblocks, strict=True):
        np.matmul(v_ones[..., k0:k1].swapaxes(-1, -2), dy_delta[..., q0:], out=dblock)
    dscores *= weights
    if dk is not None:
        for (k0, k1, q0), dblock in zip(plan.blocks, dblocks, strict=True):
            np.matmul(q[..., q0:], dblock.swapaxes(-1, -2), out=dk[..., k0:k1])
    if dq is not None:
        _sum_over_keys(k, dblocks, plan, dq)


def _sum_over_keys(x, blocks, plan, out):
    """out = x @ W, (..., D, Tk) @ (..., Tk, Tq), where W is given by its blocks of keys."""
    for (k0, k1, q0), block in zip(plan.blocks, blocks, strict=True):
        if k0 == 0:  # the first block covers all queries
            np.matmul(x[..., k0:k1], block, out=out)
        else:
            shape = out.shape[:-1] + block.shape[-1:]
            out[..., q0:] += np.matmul(
                x[..., k0:k1], block, out=scratch("partial", shape, out.dtype)
            )


def _largest_score(q, k):
    """An upper bound of |q·k| over all pairs: Cauchy and Schwarz with the longest of each."""
    lengths = [np.einsum("...dt,...dt->...t", x, x).max(initial=0) for x in (q, k)]
    return sqrt(lengths[0]) * sqrt(lengths[1])


def _stable_exp(weights, blocks, plan, causal):
    """exp(S - max S), per query over its keys, in place on the blocks of `weights`."""
    if causal:
        np.copyto(weights, -np.inf, where=plan.allowed == 0)
    highest = blocks[0].max(axis=-2)  # (..., Tq)
    for (_, _, q0), block in zip(plan.blocks[1:], blocks[1:], strict=True):
        np.maximum(highest[..., q0:], block.max(axis=-2), out=highest[..., q0:])
    for (_, _, q0), block in zip(plan.blocks, blocks, strict=True):
        block -= highest[..., None, q0:]
    np.exp(weights, out=weights)


class BlockPlan:
    """How the scores of Tq queries and Tk keys are cut into blocks of keys.

    Attributes:
        blocks: (k0, k1, q0) of each block, which holds the scores of keys k0:k1 and queries q0:Tq.
        size: the number of scores of all blocks.
        allowed: (size,) 1 where a query may see a key, 0 where not. None if not causal.
    """

    def __init__(self, queries: int, keys: int, causal: bool, dtype: np.dtype) -> None:
        self.queries = queries
        if not causal:
            self.blocks = [(0, keys, 0)]
            self.size = keys * queries
            self.allowed = None
            return
        if queries > keys:
            raise ValueError(
                f"causal attention of {queries} queries over {keys} keys: the queries are the last "
                "positions of the keys, so there cannot be more of them"
            )
        past = keys - queries  # keys that all queries see
        number = max(1, round(queries / KEYS))
        edges = [past + queries * i // number for i in range(number + 1)]
        edges[0] = 0
        self.blocks = [
            (k0, k1, max(0, k0 - past)) for k0, k1 in zip(edges[:-1], edges[1:], strict=True)
        ]
        position = np.arange(queries) + past
        masks = [position[q0:] >= np.arange(k0, k1)[:, None] for k0, k1, q0 in self.blocks]
        self.allowed = np.concatenate([mask.reshape(-1) for mask in masks]).astype(dtype)
        self.allowed.flags.writeable = False
        self.size = self.allowed.size

    def split(self, flat: np.ndarray) -> list[np.ndarray]:
        """Views (..., keys of the block, queries of the block) of `flat` (..., size)."""
        views, start = [], 0
        for k0, k1, q0 in self.blocks:
            shape = (k1 - k0, self.queries - q0)
            end = start + prod(shape)
            views.append(flat[..., start:end].reshape(*flat.shape[:-1], *shape))
            start = end
        return views


@lru_cache(maxsize=64)
def block_plan(queries: int, keys: int, causal: bool, dtype: np.dtype) -> BlockPlan:
    """The plan for these lengths, made once."""
    return BlockPlan(queries, keys, causal, dtype)


def _scale(q, scale):
    """`scale`, by default 1/√D of q (..., D, T)."""
    return 1 / sqrt(q.shape[-2]) if scale is None else scale


def _empty_heads(lead, size, time, dtype):
    """(..., D, T), stored feature-major: of the axes before T, the first lies innermost."""
    order = (*range(1, len(lead)), len(lead), 0, len(lead) + 1) if lead else (0, 1)
    shape = (*lead, size, time)
    memory = np.empty([shape[axis] for axis in order], dtype)
    return memory.transpose(np.argsort(order))


def _empty_packed(batch, time, channels, num_heads, dtype):
    """(B, T, C) stored feature-major, and a view of it as (H, B, D, T)."""
    memory = np.empty((num_heads, channels // num_heads, batch, time), dtype)
    out = memory.reshape(channels, batch, time).transpose(1, 2, 0)
    return out, memory.transpose(0, 2, 1, 3)
