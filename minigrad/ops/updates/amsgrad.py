"""AMSGrad: Adam or AdamW that divides by the root of the largest average of g² so far.

    v̂' = max(v̂, v'),    p' = p - η · m'/(1 - β₁ᵗ) / (√(v̂'/(1 - β₂ᵗ)) + ε)

Everything else is as on their pages. Where large gradients are rare, Adam's average of g² falls
between them, so that its steps grow again. AMSGrad's steps do not. Reddi, Kale and Kumar, "On the
convergence of Adam and beyond", 2018. As in PyTorch, the maximum is taken before the correction.
"""

from typing import ClassVar

from minigrad.op import Array, Number, Xp
from minigrad.ops.updates.corrections import corrections
from minigrad.ops.updates.rule import Rule


class amsgrad(Rule):
    state: ClassVar[tuple[str, ...]] = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    @staticmethod
    def step(
        xp: Xp,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        largest: Array,
        *,
        lr: Number,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        step: Number,
        decoupled: bool = True,
    ) -> tuple[Array, ...]:
        """One update; returns the new p, m, v and the largest v so far.

        With `decoupled` the decay shrinks the parameter, as in AdamW; else it is added to g.
        """
        if decoupled:
            p = p * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * (g * g)
        largest = xp.maximum(largest, v)
        first, root = corrections(p, step, beta1, beta2)
        denominator = xp.sqrt(largest) / root + eps
        return p - (lr / first) * m / denominator, m, v, largest
