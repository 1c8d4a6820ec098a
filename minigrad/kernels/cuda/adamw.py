"""AdamW over flat arrays. Twin of `minigrad.ops.updates.adamw`.

    m ← β₁m + (1-β₁)g         v ← β₂v + (1-β₂)g²
    p ← p·(1 - lr·λ) - rate·m/(√v + ε√(1-β₂ᵗ)),     rate = lr·√(1-β₂ᵗ)/(1-β₁ᵗ)

`adamw_step` takes learning rate, step count and gradient scale as Python numbers;
`adamw_step_captured` reads them from arrays on the device.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from minigrad.kernels.cuda.compile import Source, element_blocks, one_dtype, real_of, size_of

SOURCE = Source("adamw", "adamw_update<{real}>", "adamw_update_ordered<{real}>")
THREADS = 256


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
    weight_decay: float,
    step: int,
    grad_scale: float = 1.0,
) -> None:
    """One step, in place on `param`, `m` and `v` (all C-contiguous, of one dtype and size).

    Args:
        lr: the learning rate.
        weight_decay: λ.
        step: t, which counts from 1.
        grad_scale: what the gradient is multiplied by.
    """
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    root = sqrt(1 - beta2**step)
    rate, root_eps = lr * root / (1 - beta1**step), eps * root
    numbers = (grad_scale, beta1, beta2, 1 - beta1, 1 - beta2, weight_decay, lr, rate, root_eps)
    dtype = one_dtype("adamw", param, grad, m, v)
    SOURCE.launch(
        f"adamw_update<{real_of(dtype)}>",
        (element_blocks(param.size),),
        (THREADS,),
        *(param, grad, m, v, size_of(param)),
        *[float(number) for number in numbers],
        dtype=dtype,
    )


def adamw_step_captured(
    param: Any,
    grad: Any,
    m: Any,
    v: Any,
    *,
    lr: Any,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: Any,
    grad_scale: Any,
    made: Any,
) -> None:
    """The same step in one launch, with numbers that lie on the device.

    Args:
        lr, step, grad_scale: one float64 each.
        made: one float64; if it is 0 nothing is changed.
    """
    dtype = one_dtype("adamw", param, grad, m, v)
    numbers = (beta1, beta2, 1 - beta1, 1 - beta2, weight_decay)
    SOURCE.launch(
        f"adamw_update_ordered<{real_of(dtype)}>",
        (element_blocks(param.size),),
        (THREADS,),
        *(param, grad, m, v, made, grad_scale, lr, step, size_of(param)),
        *[float(number) for number in numbers],
        *[np.float64(number) for number in (beta1, beta2, eps)],
        dtype=dtype,
    )
