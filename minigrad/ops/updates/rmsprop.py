"""RMSprop: the gradient over the root of its mean square (Hinton, lecture 6e of "Neural networks
for machine learning", 2012), in the form of `torch.optim.RMSprop`.

With gradient g, learning rate η, decay λ, the average s of g² and its share α that stays:

    g' = g + λp
    s' = αs + (1 - α)g'²
    p' = p - η·g'/(√s' + ε)

If it is centered (Graves, arXiv:1308.0850), the variance stands under the root instead: s' - a'²,
with a' = αa + (1 - α)g'. With momentum μ what is divided goes into a velocity:

    b' = μb + g'/(√s' + ε),    p' = p - η·b'
"""

from typing import ClassVar

from minigrad.op import Array, Number, Xp
from minigrad.ops.updates.rule import Rule


class rmsprop(Rule):
    # and "grad_avg" if centered, "momentum_buffer" with momentum
    state: ClassVar[tuple[str, ...]] = ("step", "square_avg")

    @staticmethod
    def step(
        xp: Xp,
        p: Array,
        g: Array,
        square: Array,
        *more: Array,
        lr: Number,
        alpha: float,
        eps: float,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> tuple[Array, ...]:
        """One update; returns the new p, s and, if they are there, a and b."""
        if weight_decay:
            g = g + weight_decay * p
        square = alpha * square + (1 - alpha) * (g * g)
        new, under_root = [square], square
        if centered:
            mean = alpha * more[0] + (1 - alpha) * g
            new, under_root = [*new, mean], square - mean * mean
        direction = g / (xp.sqrt(under_root) + eps)
        if momentum:
            direction = momentum * more[-1] + direction
            new = [*new, direction]
        return p - lr * direction, *new
