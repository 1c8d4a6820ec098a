"""Adam (Kingma and Ba, arXiv:1412.6980), with weight decay as a part of the gradient.

With gradient g at step t (from 1), learning rate η, decay λ and the averages m and v of g' and g'²:

    g' = g + λp
    m' = β₁m + (1 - β₁)g',    v' = β₂v + (1 - β₂)g'²
    p' = p - η · m'/(1 - β₁ᵗ) / (√(v'/(1 - β₂ᵗ)) + ε)

The decay is the gradient of a penalty λ/2·‖p‖². It is part of both averages, so parameters with
large gradients decay less. In AdamW it is not part of them. With λ = 0 both rules are the same.
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
