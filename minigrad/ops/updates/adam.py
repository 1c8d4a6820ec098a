"""Adam (Kingma and Ba, arXiv:1412.6980), with the decay as a part of the gradient.

With gradient g at step t (from 1), learning rate η, decay λ and the averages m and v:

    g' = g + λp
    m' = β₁m + (1 - β₁)g',    v' = β₂v + (1 - β₂)g'²
    p' = p - η · m'/(1 - β₁ᵗ) / (√(v'/(1 - β₂ᵗ)) + ε)

The decay is that of a penalty λ/2·‖p‖². It goes through both averages, so that what has large
gradients decays less; AdamW leaves it out of them. Without a decay the two are one rule.
"""

from typing import Any, ClassVar

from minigrad.op import Array, Xp
from minigrad.ops.updates.adamw import adamw
from minigrad.ops.updates.rule import Rule


class adam(Rule):
    state: ClassVar[tuple[str, ...]] = adamw.state

    @staticmethod
    def step(
        xp: Xp, p: Array, g: Array, m: Array, v: Array, *, weight_decay: float, **settings: Any
    ) -> tuple[Array, ...]:
        """One update; returns the new p, m and v."""
        g = g + weight_decay * p
        return adamw.step(xp, p, g, m, v, weight_decay=0.0, **settings)
