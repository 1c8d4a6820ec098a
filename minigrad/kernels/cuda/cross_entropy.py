"""Softmax and cross-entropy in one op. Twin of `minigrad.ops.cross_entropy`.

    loss = -Σ_v q_v·ln softmax(z)_v  for each row of logits z,   q = (1 - ε)·onehot(t) + ε/V

Shapes: logits z (..., V), targets t (...) integers (int32 or int64) below V. Rows whose target is
`ignore_index` are left out. `reduction`: "none" (...), "sum", or "mean" over the other rows. A
target that is out of range gives a NaN.

Forward is one launch. Each block computes one row, or several short ones; the last block to finish
adds up the losses. The host reads nothing back: the loss and the number of targets that are not
ignored stay on the device.

Saved: z, ln Σ e^z, the targets and the number of targets that are not ignored.
"""

from __future__ import annotations

from math import prod
from typing import Any

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, blocks, dense, id_of, real_of
from minigrad.kernels.cuda.scratch import counters
from minigrad.kernels.cuda.support import of_floats, of_ids, of_rows
from minigrad.op import Array, Gradients, Needs, Result, Saved

SOURCE = Source(
    "cross_entropy",
    "cross_entropy_forward<{real}, {id}>",
    "cross_entropy_backward<{real}, {id}>",
)
THREADS = 128
SHORT, WARPS = 1024, 8  # a row of up to SHORT logits is computed by a warp, of WARPS in a block


def supports(logits: Array, targets: Array, *, ignore_index: int = -100, **_: Any) -> str | None:
    if not -(2**31) <= ignore_index < 2**31:
        return f"it takes an ignore_index of 32 bits, not {ignore_index}"
    return of_floats(logits) or of_ids(targets) or of_rows(logits)


def forward(
    logits: Array,
    targets: Array,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Result:
    xp, dtype = cupy(), logits.dtype
    logits, targets = dense(logits), dense(targets)
    lead, vocabulary = logits.shape[:-1], logits.shape[-1]
    if targets.shape != lead:
        raise ValueError(f"the targets must have shape {lead}, not {targets.shape}")
    rows = prod(lead)
    loss, log_sum = xp.empty(lead, dtype), xp.empty(rows, dtype)
    total: Any = None
    done = None
    if reduction != "none":
        total = xp.empty(2, dtype)  # the loss, and how many targets are not ignored
        done = counters(1)
        if not rows:  # then no block runs
            total[...] = 0
            if reduction == "mean":
                total[:1] = float("nan")
    arrays = (logits, targets, loss, log_sum, total, done)
    options = (ignore_index, reduction == "mean", float(label_smoothing))
    a_warp = vocabulary <= SHORT
    grid = blocks(rows, WARPS) if a_warp else rows
    threads = WARPS * 32 if a_warp else THREADS
    sizes = (rows, vocabulary, a_warp)
    _launch("forward", grid, threads, (*arrays, *sizes, *options), dtype, targets.dtype)
    if reduction == "none":
        return loss, (logits, targets, log_sum, None)
    count = total[1:] if reduction == "mean" else None
    return total[:1].reshape(()), (logits, targets, log_sum, count)


def backward(
    dy: Array,
    saved: Saved,
    needs: Needs,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Gradients:
    logits, targets, log_sum, count = saved
    if not needs[0]:
        return None, None
    dlogits = cupy().empty(logits.shape, logits.dtype)
    arrays = (logits, targets, log_sum, dense(dy), count, dlogits)
    options = (logits.shape[-1], ignore_index, float(label_smoothing), reduction == "none")
    _launch("backward", log_sum.size, THREADS, (*arrays, *options), logits.dtype, targets.dtype)
    return dlogits, None


def _launch(
    name: str, grid: int, threads: int, arguments: tuple[Any, ...], dtype: Any, id_dtype: Any
) -> None:
    kernel = f"cross_entropy_{name}<{real_of(dtype)}, {id_of(id_dtype)}>"
    SOURCE.launch(kernel, (grid,), (threads,), *arguments, dtype=dtype)
