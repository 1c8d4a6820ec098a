"""Rotary positions. Twin of `minigrad.ops.rotary`.

    y₁ = x₁·cos θ - x₂·sin θ,    y₂ = x₂·cos θ + x₁·sin θ

Shapes: x (..., D), cos and sin broadcast to (..., D/2); with `heads`, x is (..., H, D) of which the
first so many are rotated. The result is written in x's order of memory. cos and sin are copied to
that order first: they are small, and passes over long rows are fast.

Saved: cos and sin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigrad.kernels.cpu.scratch import scratch
from minigrad.op import Array, Gradients, Needs, Result, Saved
from minigrad.ops.special import by_strides


def forward(x: Array, cos: Array, sin: Array, *, heads: int | None = None) -> Result:
    return _rotated(x, cos, sin, heads, np.subtract, np.add), (cos, sin)


def infer(x: Array, cos: Array, sin: Array, *, heads: int | None = None) -> Array:
    return forward(x, cos, sin, heads=heads)[0]


def backward(dy: Array, saved: Saved, needs: Needs, *, heads: int | None = None) -> Gradients:
    cos, sin = saved
    return _rotated(dy, cos, sin, heads, np.add, np.subtract), None, None  # rotated back


def _rotated(
    x: Array, cos: Array, sin: Array, heads: int | None, first: np.ufunc, second: np.ufunc
) -> Array:
    if x.shape[-1] % 2:
        raise ValueError(f"rotary positions need an even last axis, not {x.shape[-1]}")
    half = x.shape[-1] // 2
    out = np.empty_like(x, dtype=np.result_type(x, cos))
    part, turned = x, out
    if heads is not None:
        part, turned = x[..., :heads, :], out[..., :heads, :]
        out[..., heads:, :] = x[..., heads:, :]
    x1, x2 = part[..., :half], part[..., half:]
    y1, y2 = turned[..., :half], turned[..., half:]
    order = by_strides(y1)
    cos, sin = _in_order(cos, order), _in_order(sin, order)
    across = _scratch_like(y1, order)
    np.multiply(x1, cos, out=y1)
    first(y1, np.multiply(x2, sin, out=across), out=y1)
    np.multiply(x2, cos, out=y2)
    second(y2, np.multiply(x1, sin, out=across), out=y2)
    return out


def _in_order(x: Array, order: Sequence[int]) -> Array:
    """x, which broadcasts to as many axes as `order` has, in memory of that order."""
    x = x.reshape((1,) * (len(order) - x.ndim) + x.shape)
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


def _scratch_like(x: Array, order: Sequence[int]) -> Array:
    """Workspace of x's shape, in memory of that order."""
    memory = scratch("rotary", tuple(x.shape[axis] for axis in order), x.dtype)
    return memory.transpose(np.argsort(order))
