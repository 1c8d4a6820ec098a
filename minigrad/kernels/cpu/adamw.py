"""AdamW (Loshchilov and Hutter, arXiv:1711.05101) over flat arrays, in slices that stay in cache.

    m ← β₁m + (1-β₁)g         v ← β₂v + (1-β₂)g²
    p ← p - lr·λ·p - lr·m̂/(√v̂ + ε),     m̂ = m/(1-β₁ᵗ),   v̂ = v/(1-β₂ᵗ)

NumPy needs a dozen passes for this. Over a whole large model each would read main memory; over a
slice they run in the L2 cache. The scalars are combined so that the last line is

    p ← p·(1 - lr·λ) - a·m/(√v + ε√(1-β₂ᵗ)),     a = lr·√(1-β₂ᵗ)/(1-β₁ᵗ)

and the factors of g include `grad_scale`, by which clipping multiplies the gradient.
"""

from math import sqrt
from typing import Any

import numpy as np

from minigrad.kernels.cpu.scratch import scratch

SLICE = 32_768  # elements; four arrays and a temporary of it are 640 KB in float32


def adamw_step(
    param: np.ndarray,
    grad: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    grad_scale: float = 1.0,
) -> None:
    """One step, in place on `param`, `m` and `v` (all (n,), of one dtype). `grad` is only read.

    Args:
        lr: the learning rate.
        weight_decay: λ.
        step: t, which counts from 1.
        grad_scale: the gradient is `grad * grad_scale`.
    """
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    root = sqrt(1 - beta2**step)
    rate = lr * root / (1 - beta1**step)
    root_eps = eps * root
    m_factor = (1 - beta1) * grad_scale
    v_factor = sqrt(1 - beta2) * grad_scale
    for start in range(0, param.size, SLICE):
        part = slice(start, start + SLICE)
        p, g, m_part, v_part = param[part], grad[part], m[part], v[part]
        t = scratch("adamw", p.shape, p.dtype)

        m_part *= beta1
        m_part += np.multiply(g, m_factor, out=t)
        v_part *= beta2
        np.multiply(g, v_factor, out=t)
        v_part += np.multiply(t, t, out=t)

        if weight_decay:
            p *= 1 - lr * weight_decay
        np.sqrt(v_part, out=t)
        t += root_eps
        np.divide(m_part, t, out=t)
        t *= rate
        p -= t


def adamw_step_of_scaled(
    param: np.ndarray,
    grad: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    *,
    grad_scale: float = 1.0,
    **settings: Any,
) -> None:
    """As `adamw_step`, but the gradient is multiplied first, which changes the last bits."""
    scaled = grad if grad_scale == 1 else grad * grad_scale
    adamw_step(param, scaled, m, v, **settings)
