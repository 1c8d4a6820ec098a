"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101).

With gradient g at step t (from 1), learning rate η, decay λ and the averages m and v of g and g²:

    p' = p·(1 - ηλ)
    m' = β₁m + (1 - β₁)g,    v' = β₂v + (1 - β₂)g²
    p'' = p' - η · m'/(1 - β₁ᵗ) / (√(v'/(1 - β₂ᵗ)) + ε)

m and v start as 0, so they are too small at first. The divisions by 1 - βᵗ correct that.
"""

from typing import ClassVar

from minigrad.op import Array, Number, Xp
from minigrad.ops.updates.corrections import corrections
from minigrad.ops.updates.rule import Rule


class adamw(Rule):
    state: ClassVar[tuple[str, ...]] = ("step", "exp_avg", "exp_avg_sq")

    @staticmethod
    def step(
        xp: Xp, p: Array, g: Array, m: Array, v: Array, *,
        lr: Number, beta1: float, beta2: float, eps: float, weight_decay: float, step: Number,
    ) -> tuple[Array, ...]:  # fmt: skip
        """One update; returns the new p, m and v."""
        p = p * (1 - lr * weight_decay)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * (g * g)
        first, root = corrections(p, step, beta1, beta2)
        denominator = xp.sqrt(v) / root + eps
        return p - (lr / first) * m / denominator, m, v
