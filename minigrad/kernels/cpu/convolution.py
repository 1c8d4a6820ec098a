"""Convolution as matmuls. Twin of `minigrad.ops.convolution`.

The textbook computes a small matmul for each position p of the kernel. Here all elements of x that
contribute to one output are in one column (*im2col*; Chellapilla, Puri and Simard, "High
Performance Convolutional Neural Networks for Document Processing", 2006), so that a group of images
needs a single matmul:

    Y = W X,    dW = Σ dY Xᵀ,    dX = Wᵀ dY      X: (B, groups, C/groups · kernel, positions)

and dx is dX added back to the positions that X was copied from. X is up to prod(kernel) times as
large as x. It is therefore made for a few images at a time, and again in the backward pass.

Saved: x with its borders of zeros, and W.
"""

from __future__ import annotations

from math import prod

import numpy as np

from minigrad.op import Array, Gradients, Needs, Result, Saved, Shape
from minigrad.ops.summation import sum_of
from minigrad.ops.windows import output_size, positions

# Elements of X that are made at once: 4 MB of float32, which a core's cache about holds.
BLOCK = 1 << 20


def forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    groups: int,
) -> Result:
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding))) if any(padding) else x
    kernel, batch, channels_out = weight.shape[2:], len(x), len(weight)
    out = output_size(x.shape[2:], kernel, stride, dilation)
    flat = weight.reshape(groups, channels_out // groups, -1)
    y = np.empty((batch, channels_out, *out), x.dtype)
    rows = y.reshape(batch, groups, channels_out // groups, prod(out))
    met = _met(x, kernel, out, stride, dilation)
    for images in _blocks(batch, met):
        np.matmul(flat, _columns(met[images], groups), out=rows[images])
    if bias is not None:
        y += bias.reshape(-1, *(1 for _ in out))
    return y, (x, weight)


def backward(
    dy: Array,
    saved: Saved,
    needs: Needs,
    *,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    groups: int,
) -> Gradients:
    x, weight = saved
    kernel, out = weight.shape[2:], dy.shape[2:]
    batch, channels_out = dy.shape[:2]
    rows = dy.reshape(batch, groups, channels_out // groups, prod(out))
    flat = weight.reshape(groups, channels_out // groups, -1)
    dx = np.zeros(x.shape if needs[0] else 0, x.dtype)
    dweight = np.zeros(flat.shape if needs[1] else 0, weight.dtype)
    met = _met(x, kernel, out, stride, dilation)
    for images in _blocks(batch, met):
        if needs[1]:
            columns = _columns(met[images], groups)
            dweight += sum_of(np, np.matmul(rows[images], columns.swapaxes(-1, -2)), 0)
        if needs[0]:
            dcolumns = np.matmul(flat.swapaxes(-1, -2), rows[images])
            dmet = dcolumns.reshape(-1, x.shape[1], *kernel, *out)
            _add_back(dx[images], dmet, kernel, out, stride, dilation)
    inside = (slice(p, n - p) for p, n in zip(padding, x.shape[2:], strict=True))
    return (
        np.ascontiguousarray(dx[(slice(None), slice(None), *inside)]) if needs[0] else None,
        dweight.reshape(weight.shape) if needs[1] else None,
        sum_of(np, dy, (0, *range(2, dy.ndim))) if needs[2] else None,
    )


def _met(x: Array, kernel: Shape, out: Shape, stride: Shape, dilation: Shape) -> Array:
    """A view (B, C, *kernel, *out): the elements of x that each output depends on."""
    steps = x.strides[2:]
    return np.lib.stride_tricks.as_strided(
        x,
        (*x.shape[:2], *kernel, *out),
        (
            *x.strides[:2],
            *(step * d for step, d in zip(steps, dilation, strict=True)),
            *(step * s for step, s in zip(steps, stride, strict=True)),
        ),
        writeable=False,
    )


def _columns(met: Array, groups: int) -> Array:
    """(B, C, *kernel, *out) -> (B, groups, C/groups · kernel, positions)"""
    axes = (met.ndim - 2) // 2
    channels = met.shape[1] // groups
    size = channels * prod(met.shape[2 : 2 + axes])
    return met.reshape(len(met), groups, size, prod(met.shape[2 + axes :]))


def _blocks(batch: int, met: Array) -> list[slice]:
    """Slices of images whose columns have at most BLOCK elements, or of one image."""
    step = max(1, BLOCK // max(1, met[:1].size))
    return [slice(i, min(i + step, batch)) for i in range(0, batch, step)]


def _add_back(
    dx: Array, dmet: Array, kernel: Shape, out: Shape, stride: Shape, dilation: Shape
) -> None:
    """Add dmet (B, C, *kernel, *out) to the elements of dx that it was taken from."""
    for position, met in positions(kernel, out, stride, dilation):
        dx[met] += dmet[(slice(None), slice(None), *position)]
