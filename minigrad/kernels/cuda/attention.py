"""Self-attention of all heads. Twin of `minigrad.ops.attention.multi_head_attention`.

    S = q kᵀ/√D,   P = softmax(S) along the keys,   y = P v    for each head

Shapes: qkv (B, T, 3C) -> (B, T, C), C = H·D, with D up to 128 and B up to 65,535.

Scores are never written to GPU memory. Forward stores ln Σ e^S of each row, from which backward
computes P again: P = e^(S - ln Σ e^S). Keys and values are read in tiles of 128 positions, fewer
for head sizes above 32. Backward is one launch: some blocks compute dq for a block of queries, the
others dk and dv for a block of keys. Both need δ = Σ_d dy·y for each query. They compute it
themselves where heads have up to 16 channels; for larger heads a launch before them does. Each
element of dqkv is summed by one thread, so results do not depend on timing.

Under `precision("tf32")` and `precision("bf16")` tensor cores compute the matmuls of float32
arrays (attention_mma.py). δ is exact there too.

Saved: qkv, y, ln Σ e^S, and the precision of the matmuls, which backward uses too.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from minigrad.device import cupy
from minigrad.kernels.cuda import attention_mma
from minigrad.kernels.cuda.compile import HEADS, Source, blocks, dense, real_of
from minigrad.kernels.cuda.gemm import factors_of
from minigrad.kernels.cuda.support import LARGEST, MOST_BLOCKS, of_floats
from minigrad.op import Array, Gradients, Needs, Result, Saved

SOURCE = Source(
    "attention",
    "attention_forward<{real}, {head}>",
    "attention_delta<{real}>",
    "attention_backward<{real}, {head}>",
)
THREADS = 128
OWN_DELTA = 16  # the largest heads whose δ backward computes itself


class multi_head_attention:
    """Self-attention of `num_heads` heads on packed queries, keys and values."""

    @staticmethod
    def supports(qkv: Array, *, num_heads: int, causal: bool) -> str | None:
        batch, time, channels = qkv.shape
        if channels > 3 * num_heads * HEADS[-1]:
            return f"it takes heads of up to {HEADS[-1]} channels"
        if max(batch, num_heads) > MOST_BLOCKS:
            return f"it takes up to {MOST_BLOCKS:,} sequences and heads"
        if batch * time * num_heads > LARGEST:
            return f"it counts up to {LARGEST:,} rows of all heads"
        return of_floats(qkv)

    @staticmethod
    def forward(qkv: Array, *, num_heads: int, causal: bool) -> Result:
        qkv = dense(qkv)
        batch, time, channels = qkv.shape
        if channels % (3 * num_heads):
            raise ValueError(f"{channels} channels are not 3 times {num_heads} heads of equal size")
        size = channels // (3 * num_heads)
        y = cupy().empty((batch, time, channels // 3), qkv.dtype)
        log_sum = cupy().empty((batch, num_heads, time), qkv.dtype)
        arguments = (qkv, y, log_sum, time, num_heads, size, causal, 1 / sqrt(size))
        factors = factors_of(qkv)
        _launch("forward", 1, batch, arguments, factors)
        return y, (qkv, y, log_sum, factors)

    @staticmethod
    def backward(
        dy: Array, saved: Saved, needs: Needs, *, num_heads: int, causal: bool
    ) -> Gradients:
        qkv, y, log_sum, factors = saved
        dy = dense(dy)
        batch, time, channels = dy.shape
        size = channels // num_heads
        dqkv = cupy().empty(qkv.shape, dy.dtype)
        delta = None
        if size > OWN_DELTA:
            delta = cupy().empty(log_sum.shape, dy.dtype)
            SOURCE.launch(
                f"attention_delta<{real_of(dy.dtype)}>",
                (blocks(log_sum.size, 8),),
                (256,),
                *(dy, y, delta, log_sum.size, time, num_heads, size),
                dtype=dy.dtype,
            )
        arrays = (qkv, dy, y, log_sum, delta, dqkv)
        arguments = (*arrays, time, num_heads, size, causal, 1 / sqrt(size))
        _launch("backward", 2, batch, arguments, factors)
        return (dqkv,)


def _launch(
    name: str, jobs: int, batch: int, arguments: tuple[Any, ...], factors: str | None
) -> None:
    """Launch `jobs` blocks for each block of rows.

    The last five `arguments` are time, heads, head size, causal and scale.
    """
    time, num_heads, size = arguments[-5:-2]
    head = next((head for head in HEADS if size <= head), None)
    if head is None:
        raise ValueError(f"heads of size {size}: the kernel takes up to {HEADS[-1]}")
    dtype = arguments[0].dtype
    if factors in attention_mma.FACTORS:
        source, choice = attention_mma.SOURCE, attention_mma.choose(name, factors, head)
    else:
        kernel = f"attention_{name}<{real_of(dtype)}, {head}>"
        source, choice = SOURCE, (kernel, THREADS * 16 // head, THREADS)
    kernel, rows, threads = choice
    grid = (jobs * blocks(time, rows), num_heads, batch)
    source.launch(kernel, grid, (threads,), *arguments, dtype=dtype)
