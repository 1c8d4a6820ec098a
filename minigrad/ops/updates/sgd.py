"""SGD: gradient descent with momentum (Sutskever et al., "On the importance of initialization and
momentum in deep learning", 2013), in the form of `torch.optim.SGD`.

With gradient g, learning rate η, decay λ, momentum μ, dampening τ and the velocity b:

    g' = g + λp
    b' = μb + (1 - τ)g'    (b' = g' at the first step, without dampening)
    p' = p - η·b', or with Nesterov's momentum p' = p - η·(g' + μb')

Without momentum there is no velocity: p' = p - η·g'.
"""

from typing import ClassVar

from minigrad.op import Array, Number, Xp
from minigrad.ops.updates.rule import Rule


class sgd(Rule):
    state: ClassVar[tuple[str, ...]] = ("momentum_buffer",)

    @staticmethod
    def step(
        xp: Xp,
        p: Array,
        g: Array,
        *velocity: Array,
        lr: Number,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> tuple[Array, ...]:
        """One update; returns the new p and, with momentum, the new velocity.

        The velocity starts as zeros, and `dampening` is 0 at the first step.
        """
        if weight_decay:
            g = g + weight_decay * p
        if not momentum:
            return (p - lr * g,)
        b = momentum * velocity[0] + (1 - dampening) * g
        return p - lr * (g + momentum * b if nesterov else b), b
