"""RMSprop divides the gradient by the root of its mean square (Hinton, lecture 6e of "Neural
networks for machine learning", 2012), in the form of `torch.optim.RMSprop`.

With gradient g, learning rate η, weight decay λ, and the average s of g'² with decay α:

    g' = g + λp
    s' = αs + (1 - α)g'²
    p' = p - η·g'/(√s' + ε)

If centered (Graves, arXiv:1308.0850), s' under the root is replaced by the variance s' - a'², with
a' = αa + (1 - α)g'. With momentum μ the quotient is added to a velocity b:

    b' = μb + g'/(√s' + ε),    p' = p - η·b'
"""

from typing import ClassVar

from minigrad.op import Array, Number, Xp
from minigrad.ops.updates.rule import Rule


class rmsprop(Rule):
    # also "grad_avg" if centered, and "momentum_buffer" with momentum
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
        """One update; returns the new p, s and, if they are used, a and b."""
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
