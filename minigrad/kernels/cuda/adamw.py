"""The norm of all gradients and AdamW, over flat arrays. Twin of `minigrad.ops.adamw`.

    m ← β₁m + (1-β₁)g         v ← β₂v + (1-β₂)g²
    p ← p·(1 - lr·λ) - rate·m/(√v + ε√(1-β₂ᵗ)),     rate = lr·√(1-β₂ᵗ)/(1-β₁ᵗ)

The norm stays on the device, and what clipping multiplies the gradient by goes from there to the
update: a clipped step is three launches, and the host waits for none of them.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, element_blocks, one_dtype, real_of, size_of

SOURCE = Source("adamw", "squares_partial<{real}>", "squares_finish", "adamw_update<{real}>")
THREADS = 256
MOST_PARTS = 256  # of a norm, so that one block can add them up


def grad_norm(flat: Any, max_norm: float = inf) -> Any:
    """(2,) in float64 on the device: √Σ flat², and the factor min(1, max_norm/(norm + 1e-6)).

    Args:
        flat: C-contiguous, any shape. Squares are summed in double precision, in a fixed order.
        max_norm: what the norm is to be limited to.
    """
    xp = cupy()
    parts = max(1, min(element_blocks(flat.size), MOST_PARTS))
    partial, result = xp.empty(parts, np.float64), xp.empty(2, np.float64)
    SOURCE.launch(
        f"squares_partial<{real_of(flat.dtype)}>",
        (parts,),
        (THREADS,),
        *(flat, partial, size_of(flat)),
        dtype=flat.dtype,
    )
    limit = np.float64(max_norm)
    SOURCE.launch("squares_finish", (1,), (THREADS,), partial, result, parts, limit)
    return result


def adamw_step(
    param: Any,
    grad: Any,
    m: Any,
    v: Any,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float | Any,
    step: int,
    grad_scale: Any = None,
) -> None:
    """One step, in place on `param`, `m` and `v` (all C-contiguous, of one dtype and size).

    Args:
        lr: the learning rate.
        weight_decay: λ, one for all elements or an array of each element's.
        step: t, which counts from 1.
        grad_scale: one float64 on the device that the gradient is multiplied by, or None for 1;
            `grad_norm(...)[1:]` clips.
    """
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    per_element = not isinstance(weight_decay, (int, float))
    decays = weight_decay if per_element else None
    dtype = one_dtype("adamw", param, grad, m, v, decays)
    root = sqrt(1 - beta2**step)
    rate, root_eps = lr * root / (1 - beta1**step), eps * root
    numbers = (lr, beta1, beta2, 1 - beta1, 1 - beta2, 0.0 if per_element else weight_decay)
    SOURCE.launch(
        f"adamw_update<{real_of(dtype)}>",
        (element_blocks(param.size),),
        (THREADS,),
        *(param, grad, m, v, grad_scale, decays, size_of(param)),
        *[float(number) for number in (*numbers, rate, root_eps)],
        dtype=dtype,
    )
