"""Muon: momentum made orthogonal, for the matrices of a network.

With gradient G (m, n) of a weight matrix W, momentum μ, learning rate η and decay λ:

    B' = μB + (1 - μ)G,    M = μB' + (1 - μ)G    (Nesterov's momentum)
    W' = W·(1 - ηλ) - η · 0.2·√max(m, n) · orthogonal(M)

`orthogonal(M)` is about UVᵀ, where UΣVᵀ is the singular value decomposition of M. So the step is
equally long in all singular directions, while Adam's is longest in the few that dominate the
gradient. The factor 0.2·√max(m, n) gives the update's elements about the size of AdamW's, so that
both can use the same learning rate and decay.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon; the factor: Liu et al., "Muon is Scalable for LLM
Training", arXiv:2502.16982.
"""

from typing import ClassVar

from minigrad.op import Array, Number, Xp
from minigrad.ops.updates.adamw import adamw
from minigrad.ops.updates.rule import Rule

QUINTIC = (3.4445, -4.7750, 2.0315)  # by Jordan; steep at 0, so small singular values grow fast
ITERATIONS = 5
RMS = 0.2  # about the root mean square of the elements of an AdamW update


class muon(Rule):
    state: ClassVar[tuple[str, ...]] = ("step", "momentum_buffer")
    elementwise = False

    @staticmethod
    def step(
        xp: Xp,
        w: Array,
        g: Array,
        buffer: Array,
        *,
        lr: Number,
        momentum: float,
        weight_decay: float,
        parts: int = 1,
    ) -> tuple[Array, ...]:
        """One update of matrices (..., m, n); returns the new w and buffer, which starts as zeros.

        Each holds `parts` stacked matrices, which are made orthogonal separately.
        """
        buffer = momentum * buffer + (1 - momentum) * g
        ahead = momentum * buffer + (1 - momentum) * g
        rows, columns = w.shape[-2] // parts, w.shape[-1]
        direction = orthogonalized(xp, ahead.reshape(-1, rows, columns)).reshape(w.shape)
        size = lr * RMS * max(rows, columns) ** 0.5
        return w * (1 - lr * weight_decay) - size * direction, buffer


class adamw_beside(adamw):
    """AdamW for parameters that are not matrices.

    Its kernels first multiply gradients by the scale, as `muon` does. So a step with a scale is
    bitwise identical to a step with scaled gradients.
    """


def orthogonalized(xp: Xp, matrices: Array, iterations: int = ITERATIONS) -> Array:
    """About UVᵀ for each matrix UΣVᵀ of a stack (n, rows, columns).

    A Newton-Schulz iteration: each round maps every singular value s to a·s + b·s³ + c·s⁵, by
    matmuls only. The coefficients trade accuracy for speed: after five rounds the singular values
    lie between about 0.7 and 1.2, which is good enough for an optimizer.
    """
    a, b, c = QUINTIC
    x = xp.swapaxes(matrices, 1, 2) if matrices.shape[1] > matrices.shape[2] else matrices
    norm = xp.sqrt((x * x).sum(axis=(1, 2), keepdims=True))
    x = x / (norm + 1e-7)  # so all singular values are at most 1
    for _ in range(iterations):
        gram = xp.matmul(x, xp.swapaxes(x, 1, 2))  # (n, k, k), k the smaller side
        x = a * x + xp.matmul(b * gram + c * xp.matmul(gram, gram), x)
    return xp.swapaxes(x, 1, 2) if matrices.shape[1] > matrices.shape[2] else x
