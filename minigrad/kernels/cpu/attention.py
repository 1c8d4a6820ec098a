"""Scaled dot-product attention. Twin of `minigrad.ops.attention`.

    S = scale·q kᵀ,   P = softmax(S) along the keys,   y = P v

Shapes: q (..., Tq, D), k (..., Tk, D), v (..., Tk, Dv), y (..., Tq, Dv).

Element-wise passes over the (Tq, Tk) scores cost more than the matmuls that make and use them.
Hence:

- Scores are stored keys × queries, so that per-query numbers are rows. q is multiplied by `scale`
  beforehand, and by log₂e where 2^x is faster than e^x.
- Queries are split into blocks, and a block's scores are computed only for the keys that one of its
  queries may see. Forward finishes a block (of all heads) before the next, so that it stays in
  cache, and masks only the keys that not all of its queries see. All blocks of a head are stored
  one after another, so that backward's product dP·P is one call on one flat array.
- E = exp(S) is not normalised. v gets a row of ones below it, so that one matmul gives both v E
  and the sums l = Σ_keys E. Then y = (v E)/l is a pass over (Tq, Dv) only.
- The maximum of each query's scores is not subtracted at first. If the scores were too large or
  too small for that, the sums l show it. Then the scores are computed again, minus their maximum.
- Backward, with dy' = dy/l and δ' = Σ_d dy'·y, needs

      dv = dy' Eᵀ,   dS = E·(vᵀ dy' - δ'),   dq = scale·k dS,   dk = q dSᵀ·scale

  where -δ' is a row below dy'. The matmul with v's row of ones does the subtraction.

Where no gradient is wanted (`infer`), one block's scores are in memory at a time.

Saved: q, k, v, E (so that backward has no exp), 1/l and y.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from math import prod, sqrt
from typing import Any

import numpy as np

from minigrad.kernels.cpu.exponential import exponential
from minigrad.kernels.cpu.layout import empty_rows
from minigrad.kernels.cpu.scratch import scratch
from minigrad.kernels.cpu.threads import shared
from minigrad.op import Array, Gradients, Needs, Result, Saved, Shape
from minigrad.ops.grouped_attention import grouped_head_size

BLOCK = 32  # queries: small blocks compute fewer unused scores, large ones multiply faster
STRIP = 16  # rows that are transposed at a time: as many numbers as a line of the cache holds
SAFE_SUM = 1e15  # sums of exp(S) in 1/SAFE_SUM..SAFE_SUM: far from the limits of float32


def forward(
    q: Array, k: Array, v: Array, *, causal: bool, scale: float | None = None, keep: bool = True
) -> Result:
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    queries, keys, values = (
        np.broadcast_to(x, lead + x.shape[-2:]).swapaxes(-1, -2) for x in (q, k, v)
    )
    out = _empty(lead, v.shape[-1], q.shape[-2], q.dtype)
    saved = _forward(queries, keys, values, out, causal, scale, keep)
    return out.swapaxes(-1, -2), saved


def infer(q: Array, k: Array, v: Array, *, causal: bool, scale: float | None = None) -> Array:
    return forward(q, k, v, causal=causal, scale=scale, keep=False)[0]


def backward(
    dy: Array, saved: Saved, needs: Needs, *, causal: bool, scale: float | None = None
) -> Gradients:
    q, k, v = saved[:3]
    lead, dtype = q.shape[:-2], q.dtype
    dq = _empty(lead, q.shape[-2], q.shape[-1], dtype) if needs[0] else None
    dk = _empty(lead, k.shape[-2], k.shape[-1], dtype) if needs[1] else None
    dv = _empty(lead, v.shape[-2], v.shape[-1], dtype) if needs[2] else None
    _backward(dy.swapaxes(-1, -2), saved, dq, dk, dv, causal, scale)
    return tuple(None if g is None else g.swapaxes(-1, -2) for g in (dq, dk, dv))


class grouped_query_attention:
    """Self-attention in which G = H/K heads of queries share one of K of keys and values.

    Shapes: qkv (B, T, (H + 2K)·D) -> (B, T, H·D). In feature-major memory the queries of a head are
    D rows of the array, and BLAS reads and writes them where they are. Keys and values have an axis
    of size 1 for the group, along which matmuls repeat them without copies.
    """

    @staticmethod
    def forward(
        qkv: Array, *, num_heads: int, num_kv_heads: int, causal: bool, keep: bool = True
    ) -> Result:
        q, k, v = _cut(qkv.transpose(2, 0, 1), num_heads, num_kv_heads)  # (K, G or 1, B, D, T)
        out = _empty(q.shape[:-2], q.shape[-2], q.shape[-1], qkv.dtype)
        return _merge_heads(_ungrouped(out)), _forward(q, k, v, out, causal, None, keep)

    @staticmethod
    def infer(qkv: Array, *, num_heads: int, num_kv_heads: int, causal: bool) -> Array:
        heads = {"num_heads": num_heads, "num_kv_heads": num_kv_heads}
        return grouped_query_attention.forward(qkv, **heads, causal=causal, keep=False)[0]

    @staticmethod
    def backward(
        dy: Array, saved: Saved, needs: Needs, *, num_heads: int, num_kv_heads: int, causal: bool
    ) -> Gradients:
        batch, time, channels = dy.shape
        size, group = channels // num_heads, num_heads // num_kv_heads
        dy_heads = dy.reshape(batch, time, num_kv_heads, group, size).transpose(2, 3, 0, 4, 1)
        dqkv = _empty((num_heads + 2 * num_kv_heads, batch), size, time, dy.dtype)
        dq = dqkv[:num_heads].reshape(num_kv_heads, group, *dqkv.shape[1:])
        dk = dqkv[num_heads : num_heads + num_kv_heads, None]  # (K, 1, B, D, T)
        dv = dqkv[num_heads + num_kv_heads :, None]
        _backward(dy_heads, saved, dq, dk, dv, causal, None)
        return (_merge_heads(dqkv),)


class multi_head_attention:
    """Self-attention of `num_heads` heads on packed queries, keys and values.

    Shapes: qkv (B, T, 3C) -> (B, T, C), C = H·D: as above, in groups of one.
    """

    @staticmethod
    def forward(qkv: Array, *, num_heads: int, causal: bool, keep: bool = True) -> Result:
        heads = {"num_heads": num_heads, "num_kv_heads": num_heads}
        return grouped_query_attention.forward(qkv, **heads, causal=causal, keep=keep)

    @staticmethod
    def infer(qkv: Array, *, num_heads: int, causal: bool) -> Array:
        return multi_head_attention.forward(qkv, num_heads=num_heads, causal=causal, keep=False)[0]

    @staticmethod
    def backward(
        dy: Array, saved: Saved, needs: Needs, *, num_heads: int, causal: bool
    ) -> Gradients:
        heads = {"num_heads": num_heads, "num_kv_heads": num_heads}
        return grouped_query_attention.backward(dy, saved, needs, **heads, causal=causal)


def _cut(rows: Array, num_heads: int, num_kv_heads: int) -> tuple[Array, Array, Array]:
    """Queries (K, G, B, D, T), keys and values (K, 1, B, D, T) of ((H + 2K)·D, B, T): views."""
    channels, batch, time = rows.shape
    size = grouped_head_size(channels, num_heads, num_kv_heads)
    heads = rows.reshape(-1, size, batch, time).swapaxes(1, 2)  # (H + 2K, B, D, T)
    q = heads[:num_heads].reshape(num_kv_heads, -1, *heads.shape[1:])
    k = heads[num_heads : num_heads + num_kv_heads]
    return q, k[:, None], heads[num_heads + num_kv_heads :, None]


def _ungrouped(x: Array) -> Array:
    """(K, G, B, D, T) -> (H, B, D, T)"""
    return x.reshape(-1, *x.shape[2:])


def _forward(
    q: Array, k: Array, v: Array, out: Array, causal: bool, scale: float | None, keep: bool
) -> tuple[Array, ...] | None:
    """Attention of q, k (..., D, T) and v (..., Dv, T) into `out` (..., Dv, Tq).

    Returns what backward needs, or, without `keep`, nothing.
    """
    lead, dtype = q.shape[:-2], q.dtype
    plan = block_plan(q.shape[-1], k.shape[-1], causal, dtype)
    exp, factor = exponential(dtype)
    scaled = _empty(lead, q.shape[-2], q.shape[-1], dtype, "scaled")
    np.multiply(q, dtype.type(_scale(q, scale) * factor), out=scaled)
    v_ones = _with_ones(v)
    weights = np.empty((*lead, plan.size), dtype) if keep else None
    total = _empty(lead, v_ones.shape[-2], q.shape[-1], dtype, "total")
    sums = total[..., -1:, :]  # (..., 1, Tq)
    with np.errstate(over="ignore", invalid="ignore"):
        _weigh_softly(scaled, k, v_ones, plan, weights, exp, False, total)
        safe = sums.min(initial=1) >= 1 / SAFE_SUM and sums.max(initial=1) <= SAFE_SUM
    if not safe:  # also if a sum is NaN
        # With NumPy's own e^x: 2^x is slow where it underflows.
        np.multiply(q, dtype.type(_scale(q, scale)), out=scaled)
        _weigh_softly(scaled, k, v_ones, plan, weights, np.exp, True, total)
    inverse_sum = 1 / sums
    np.multiply(total[..., :-1, :], inverse_sum, out=out)
    return (q, k, v, weights, inverse_sum, out) if keep else None


def _with_ones(v: Array) -> Array:
    """v (..., Dv, T) with a row of ones below it, in workspace memory."""
    v_ones = _empty(v.shape[:-2], v.shape[-2] + 1, v.shape[-1], v.dtype, "v_ones")
    v_ones[..., :-1, :] = v
    v_ones[..., -1, :] = 1
    return v_ones


def _weigh_softly(
    q: Array,
    k: Array,
    v_ones: Array,
    plan: BlockPlan,
    weights: Array | None,
    exp: Any,
    subtract_maximum: bool,
    total: Array,
) -> None:
    """total = v_ones exp(kᵀ q), block by block. `weights`, if given, receives exp(kᵀ q)."""
    blocks = None if weights is None else plan.split(weights)

    def compute(some: slice) -> None:
        for number in range(len(plan.blocks))[some]:
            q0, q1, seen = plan.blocks[number]
            shape = (*q.shape[:-2], seen, q1 - q0)
            block = scratch("weights", shape, q.dtype) if blocks is None else blocks[number]
            np.matmul(k[..., :seen].swapaxes(-1, -2), q[..., q0:q1], out=block)
            diagonal = block[..., seen - (q1 - q0) :, :]
            if subtract_maximum:
                if plan.allowed is not None:
                    np.copyto(diagonal, -np.inf, where=plan.allowed[number] == 0)
                block -= block.max(axis=-2, keepdims=True)
            exp(block, out=block)
            if plan.allowed is not None:
                diagonal *= plan.allowed[number]
            np.matmul(v_ones[..., :seen], block, out=total[..., q0:q1])

    shared(len(plan.blocks), prod(q.shape[:-2]) * plan.size, compute)


def _backward(
    dy: Array,
    saved: Saved,
    dq: Array | None,
    dk: Array | None,
    dv: Array | None,
    causal: bool,
    scale: float | None,
) -> None:
    """Write the gradients, from dy (..., Dv, Tq); None for those that are not needed."""
    q, k, v, weights, inverse_sum, out = saved
    lead, dtype, size = q.shape[:-2], q.dtype, out.shape[-2]
    plan = block_plan(q.shape[-1], k.shape[-1], causal, dtype)
    dy_delta = _empty(lead, size + 1, q.shape[-1], dtype, "dy_delta")
    dy_scaled = np.multiply(dy, inverse_sum, out=dy_delta[..., :size, :])
    product = np.multiply(dy_scaled, out, out=_empty(lead, size, q.shape[-1], dtype, "product"))
    np.negative(np.add.reduce(product, axis=-2), out=dy_delta[..., size, :])

    blocks = plan.split(weights)
    if dv is not None:
        _sum_over_queries(dy_scaled, plan, blocks, 1, dv)
    if dq is None and dk is None:
        return
    dscores = scratch("dscores", weights.shape, dtype)
    dblocks = plan.split(dscores)
    _scores(dy_delta, _with_ones(v), plan, dblocks)
    dscores *= weights
    if dq is not None:
        _weigh(k, plan, dblocks, dq)
        dq *= dtype.type(_scale(q, scale))
    if dk is not None:
        _sum_over_queries(q, plan, dblocks, _scale(q, scale), dk)


def _scores(q: Array, k: Array, plan: BlockPlan, blocks: Sequence[Array]) -> None:
    """kᵀ q, (..., Tk, D) @ (..., D, Tq), block by block."""
    for (q0, q1, seen), block in zip(plan.blocks, blocks, strict=True):
        np.matmul(k[..., :seen].swapaxes(-1, -2), q[..., q0:q1], out=block)


def _weigh(x: Array, plan: BlockPlan, blocks: Sequence[Array], out: Array) -> None:
    """out = x W, (..., D, Tk) @ (..., Tk, Tq), where W is given by its blocks."""
    for (q0, q1, seen), block in zip(plan.blocks, blocks, strict=True):
        np.matmul(x[..., :seen], block, out=out[..., q0:q1])


def _sum_over_queries(
    x: Array, plan: BlockPlan, blocks: Sequence[Array], factor: float, out: Array
) -> None:
    """out = factor·x Wᵀ, (..., D, Tq) @ (..., Tq, Tk), where W is given by its blocks.

    Computed as W xᵀ from a transposed copy of x: BLAS is slow at small matmuls whose second operand
    it has to read across its rows.
    """
    lead, size, dtype = x.shape[:-2], x.shape[-2], x.dtype
    turned = scratch("turned", (*lead, x.shape[-1], size), dtype)  # (..., Tq, D)
    for start in range(0, size, STRIP):
        strip = slice(start, start + STRIP)
        np.multiply(x[..., strip, :].swapaxes(-1, -2), dtype.type(factor), out=turned[..., strip])
    total = scratch("sum", (*lead, out.shape[-1], size), dtype)  # (..., Tk, D)
    (q0, q1, _), block = plan.blocks[-1], blocks[-1]  # the last queries see all keys
    np.matmul(block, turned[..., q0:q1, :], out=total)
    for (q0, q1, seen), block in zip(plan.blocks[:-1], blocks[:-1], strict=True):
        part = scratch("part", (*lead, seen, size), dtype)
        np.matmul(block, turned[..., q0:q1, :], out=part)
        total[..., :seen, :] += part
    if out.shape[:-2] == lead:
        np.copyto(out, total.swapaxes(-1, -2))
    else:  # one of keys and values for a group of queries
        np.add.reduce(total.swapaxes(-1, -2), axis=1, keepdims=True, out=out)


class BlockPlan:
    """How the scores of Tq queries and Tk keys are cut into blocks of queries.

    Attributes:
        blocks: (q0, q1, seen) of each block, which holds the scores of queries q0:q1, keys 0:seen.
        size: the number of scores of all blocks.
        allowed: for each block, whose last keys not all of its queries may see, (q1 - q0, q1 - q0)
            of these: 1 where a query may see a key, 0 where not. None if not causal.
    """

    def __init__(self, queries: int, keys: int, causal: bool, dtype: np.dtype) -> None:
        self.allowed: list[np.ndarray] | None = None
        if causal and queries > keys:
            raise ValueError(
                f"causal attention of {queries} queries over {keys} keys: the queries are the last "
                "positions of the keys, so there cannot be more of them"
            )
        past = keys - queries  # keys that all queries see
        number = max(1, round(queries / BLOCK)) if causal else 1
        edges = [queries * i // number for i in range(number + 1)]
        self.blocks: list[tuple[int, int, int]] = [
            (q0, q1, past + q1 if causal else keys) for q0, q1 in pairwise(edges)
        ]
        if causal:
            self.allowed = [
                np.triu(np.ones((q1 - q0, q1 - q0), dtype)) for q0, q1, _ in self.blocks
            ]
        self.size: int = sum((q1 - q0) * seen for q0, q1, seen in self.blocks)

    def split(self, flat: np.ndarray) -> list[np.ndarray]:
        """Views (..., keys of the block, queries of the block) of `flat` (..., size)."""
        views, start = [], 0
        for q0, q1, seen in self.blocks:
            shape = (seen, q1 - q0)
            end = start + prod(shape)
            views.append(flat[..., start:end].reshape(*flat.shape[:-1], *shape))
            start = end
        return views


@lru_cache(maxsize=64)
def block_plan(queries: int, keys: int, causal: bool, dtype: np.dtype) -> BlockPlan:
    """The plan for these lengths, made once."""
    return BlockPlan(queries, keys, causal, dtype)


def _scale(q: Array, scale: float | None) -> float:
    """`scale`, by default 1/√D of q (..., D, T)."""
    return 1 / sqrt(q.shape[-2]) if scale is None else scale


def _empty(lead: Shape, size: int, time: int, dtype: Any, name: str | None = None) -> Array:
    """(H, B, D, T), stored in the order H, D, B, T, so that a pass over it has long rows.

    Of more or fewer leading axes, all but the last stand for H. With a name, it is a workspace.
    """
    if not lead:
        return scratch(name, (size, time), dtype) if name else empty_rows((size,), time, dtype)
    if name:
        return scratch(name, (*lead[:-1], size, lead[-1], time), dtype).swapaxes(-2, -3)
    rows = empty_rows((*lead[:-1], size), lead[-1] * time, dtype)
    return rows.reshape(*lead[:-1], size, lead[-1], time).swapaxes(-2, -3)


def _merge_heads(x: Array) -> Array:
    """(H, B, D, T) -> (B, T, H·D), a view in feature-major memory if x is as `_empty` makes it."""
    heads, batch, size, time = x.shape
    return x.transpose(0, 2, 1, 3).reshape(heads * size, batch, time).transpose(1, 2, 0)
