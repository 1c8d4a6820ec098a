"""Attention with masks, and a layer with projections. The maths: `minigrad.ops.attention`."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from minigrad import functions
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_tensor
from minigrad.nn.checks import broadcasts
from minigrad.nn.functional import scaled_dot_product_attention
from minigrad.nn.layers import Linear
from minigrad.nn.module import Module
from minigrad.random import Generator
from minigrad.tensor import Tensor


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Any, *, scale: float | None = None
) -> Tensor:
    """softmax(q kᵀ·scale) v over the keys that a mask allows.

    Args:
        q: (..., Tq, D); k: (..., Tk, D); v: (..., Tk, Dv).
        mask: booleans, True where a query may see a key, or numbers that are added to the scores;
            broadcasts to (..., Tq, Tk).
        scale: 1/√D unless given.

    Returns:
        (..., Tq, Dv). A query that may see no key gets zeros.

    Raises:
        ShapeError: the shapes do not fit.
    """
    mask = as_tensor(mask, like=q)
    scores = functions.matmul(q, functions.swapaxes(k, -1, -2))
    scores = scores * (1 / sqrt(q.shape[-1]) if scale is None else scale)
    if not broadcasts(mask.shape, scores.shape):
        raise ShapeError(
            f"attention: a mask of shape {mask.shape} does not fit scores of shape {scores.shape}"
        )
    if mask.dtype.kind == "f":
        return functions.matmul(functions.softmax(scores + mask, axis=-1), v)
    allowed = mask.astype("bool")
    lowest = float(np.finfo(scores.dtype).min)
    weights = functions.softmax(functions.where(allowed, scores, lowest), axis=-1)
    return functions.matmul(functions.where(allowed, weights, 0), v)


class MultiheadAttention(Module):
    """Attention of several heads on projections of queries, keys and values.

    With fewer key/value heads than query heads, groups of query heads share one (Ainslie et al.,
    arXiv:2305.13245).

    Args:
        embed_dim: C, the channels of queries and of the result; a multiple of num_heads.
        num_heads: H.
        num_kv_heads: heads of keys and values, of which H is a multiple; H unless given.
        bias: whether the projections have biases.
        rng: source of the initial values.

    Raises:
        ValueError: the numbers of channels and heads do not fit.
    """

    num_heads: int
    num_kv_heads: int

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        bias: bool = True,
        *,
        rng: Generator,
        dtype: Any = np.float32,
    ) -> None:
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads < 1 or embed_dim % num_heads or kv_heads < 1 or num_heads % kv_heads:
            raise ValueError(
                f"MultiheadAttention: {embed_dim} channels, {num_heads} heads and {kv_heads} "
                "key/value heads do not fit: channels must be a multiple of heads, and heads of "
                "key/value heads"
            )
        self.num_heads, self.num_kv_heads = num_heads, kv_heads
        kv_dim = embed_dim // num_heads * kv_heads
        self.q_proj: Linear = Linear(embed_dim, embed_dim, bias, rng=rng, dtype=dtype)
        self.k_proj: Linear = Linear(embed_dim, kv_dim, bias, rng=rng, dtype=dtype)
        self.v_proj: Linear = Linear(embed_dim, kv_dim, bias, rng=rng, dtype=dtype)
        self.out_proj: Linear = Linear(embed_dim, embed_dim, bias, rng=rng, dtype=dtype)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        mask: Any = None,
        causal: bool = False,
    ) -> Tensor:
        """(B, Tq, C), keys and values (B, Tk, C) -> (B, Tq, C)

        Args:
            query: what the queries are computed from.
            key: what the keys are computed from; the query unless given.
            value: what the values are computed from; the key unless given.
            mask: as `masked_attention`, broadcasting to (B, H, Tq, Tk).
            causal: a query sees no later key.

        Raises:
            ShapeError: the shapes do not fit.
        """
        key = query if key is None else key
        value = key if value is None else value
        q = self._heads(self.q_proj(query), self.num_heads)  # (B, H, Tq, D)
        k = self._repeated(self._heads(self.k_proj(key), self.num_kv_heads))
        v = self._repeated(self._heads(self.v_proj(value), self.num_kv_heads))
        if mask is None:
            y = scaled_dot_product_attention(q, k, v, causal=causal)
        else:
            mask = as_tensor(mask, like=q)
            if causal:
                mask = _and_causal(mask, q.shape[-2], k.shape[-2])
            y = masked_attention(q, k, v, mask)
        batch, _, time, _ = y.shape
        return self.out_proj(functions.swapaxes(y, 1, 2).reshape(batch, time, -1))

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        """(B, T, H·D) -> (B, H, T, D)"""
        if x.ndim != 3:
            raise ShapeError(f"MultiheadAttention: inputs must be (B, T, C), not {x.shape}")
        batch, time, channels = x.shape
        return functions.swapaxes(x.reshape(batch, time, heads, channels // heads), 1, 2)

    def _repeated(self, x: Tensor) -> Tensor:
        """(B, KV, T, D) -> (B, H, T, D): each head of keys or values for its group of queries."""
        group = self.num_heads // self.num_kv_heads
        if group == 1:
            return x
        batch, heads, time, size = x.shape
        wide = functions.broadcast_to(x[:, :, None], (batch, heads, group, time, size))
        return wide.reshape(batch, heads * group, time, size)

    def extra_repr(self) -> str:
        shared = f", {self.num_kv_heads} key/value heads"
        return f"{self.num_heads} heads" + (shared if self.num_kv_heads < self.num_heads else "")


def _and_causal(mask: Tensor, queries: int, keys: int) -> Tensor:
    """The mask, combined with the causal mask."""
    positions = np.arange(queries)[:, None] + (keys - queries)
    earlier = as_tensor(np.arange(keys) <= positions, like=mask)
    if mask.dtype.kind == "f":
        lowest = float(np.finfo(mask.dtype).min)
        return functions.where(earlier, mask, lowest)
    return functions.logical_and(mask, earlier)
