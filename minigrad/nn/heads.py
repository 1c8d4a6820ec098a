"""Attention and rotary positions as functions, which are public in `minigrad.nn.functional`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.announce import announce
from minigrad.device import Device
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions import concatenate, reshape
from minigrad.functions.convert import as_floats, as_tensor
from minigrad.op import Op
from minigrad.state import STATE
from minigrad.tensor import Tensor


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(q kᵀ·scale) v. See `minigrad.ops.attention`.

    Args:
        q: (..., Tq, D); k: (..., Tk, D); v: (..., Tk, Dv), with equal leading axes.
        causal: a query sees no later key; the queries are the last Tq of the Tk positions.
        scale: 1/√D unless given.

    Returns:
        (..., Tq, Dv)

    Raises:
        ShapeError: the shapes do not fit.
    """
    q, k, v = as_floats(q, k, v)
    fits = (
        min(q.ndim, k.ndim, v.ndim) >= 2
        and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        and q.shape[-1] == k.shape[-1]
        and k.shape[-2] == v.shape[-2]
    )
    if not fits:
        raise ShapeError(
            f"attention: q {q.shape}, k {k.shape} and v {v.shape} do not fit: they need equal "
            "leading axes, q and k one head size, k and v one length"
        )
    return apply(ops.attention.scaled_dot_product_attention, q, k, v, causal=causal, scale=scale)


def multi_head_attention(
    qkv: Tensor, *, num_heads: int, causal: bool = True, num_kv_heads: int | None = None
) -> Tensor:
    """Self-attention on packed queries, keys and values, (B, T, 3C) -> (B, T, C).

    See `minigrad.ops.attention.multi_head_attention`.

    Args:
        num_kv_heads: K heads of keys and values, each shared by num_heads/K heads of queries:
            (B, T, (H + 2K)·D) -> (B, T, H·D), see `minigrad.ops.grouped_attention`. num_heads
            unless given.

    Raises:
        ShapeError: qkv does not have three axes, or its last does not fit the heads.
    """
    (qkv,) = as_floats(qkv)
    if qkv.ndim != 3:
        raise ShapeError(f"multi_head_attention: qkv must be (B, T, 3C), not {qkv.shape}")
    if num_heads < 1:
        raise ValueError(f"multi_head_attention: num_heads must be at least 1, not {num_heads}")
    if num_kv_heads is not None and num_kv_heads < 1:
        raise ValueError(
            f"multi_head_attention: num_kv_heads must be at least 1, not {num_kv_heads}"
        )
    if num_kv_heads not in (None, num_heads):
        op = ops.grouped_attention.grouped_query_attention
        if qkv.device.kind in op.kernels or STATE.textbook:
            heads = {"num_heads": num_heads, "num_kv_heads": num_kv_heads}
            return apply(op, qkv, **heads, causal=causal)
        qkv = _repeated(qkv, num_heads, num_kv_heads)
    if qkv.shape[-1] % (3 * num_heads):
        raise ShapeError(
            f"multi_head_attention: {qkv.shape[-1]} channels are not 3 times {num_heads} heads of "
            "equal size"
        )
    return apply(ops.attention.multi_head_attention, qkv, num_heads=num_heads, causal=causal)


def _repeated(qkv: Tensor, num_heads: int, num_kv_heads: int) -> Tensor:
    """(B, T, (H + 2K)·D) -> (B, T, 3·H·D): each head of keys and values for each of its queries.

    The GPU's kernel needs as many heads of keys as of queries, and can be part of a CUDA graph.
    """
    batch, time, channels = qkv.shape
    size = ops.grouped_attention.grouped_head_size(channels, num_heads, num_kv_heads)
    device = qkv.device
    group = as_tensor(_ones_on(device, device.xp, num_heads // num_kv_heads, qkv.dtype), like=qkv)
    shared = reshape(qkv[..., num_heads * size :], (batch, time, 2, num_kv_heads, 1, size))
    repeated = reshape(shared * group, (batch, time, 2 * num_heads * size))
    return concatenate([qkv[..., : num_heads * size], repeated], axis=-1)


@lru_cache(maxsize=64)
def _ones_on(device: Device, xp: Any, size: int, dtype: Any) -> Any:
    """(size, 1) of 1, kept on the device because a CUDA graph cannot copy from the CPU.

    `xp` is the device's array library, here only a part of the cache's key.
    """
    return device.asarray(np.ones((size, 1), dtype))


def rotary(x: Tensor, cos: Any, sin: Any, *, heads: int | None = None) -> Tensor:
    """Rotate pairs along the last axis by position. See `minigrad.ops.rotary`.

    Args:
        x: (..., D), D even; cos, sin: constants that broadcast to (..., D/2).
        heads: how many heads of (..., heads, D) are rotated; all unless given.

    Raises:
        ShapeError: D is odd, or cos or sin does not fit, or there are fewer heads.
        TypeError: cos or sin requires a gradient, which this op does not compute.
    """
    (x,) = as_floats(x)
    if heads is not None and not (x.ndim > 1 and 0 <= heads <= x.shape[-2]):
        raise ShapeError(f"rotary: x of shape {x.shape} does not have {heads} heads to turn")
    cos, sin = (as_tensor(part, like=x).astype(x.dtype, copy=False) for part in (cos, sin))
    if cos.requires_grad or sin.requires_grad:
        raise TypeError("rotary: cos and sin are constants; pass .detach() of them")
    return apply(ops.rotary.rotary, x, cos, sin, heads=heads)


def with_kernel(op: type[Op], x: Tensor) -> type[Op]:
    """The op. Warns if there is no kernel for it on x's device."""
    if x.device.kind not in op.kernels and not STATE.textbook:
        announce(f"{op.name}: the textbook runs on the {x.device.kind}: it has no kernel there")
    return op
