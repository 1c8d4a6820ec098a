"""Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167), in training.

    y = w·x̂ + b,   x̂ = (x - μ)/σ,   μ = mean(x),   σ = √(var(x) + ε)

The mean and the variance of a channel are taken over the batch and all spatial axes.

Shapes: x (B, C, *size), weight w (C,) or None for 1, bias b (C,) or None for 0, y as x.

The gradient is that of `minigrad.ops.layer_norm`, with other axes: with g = dy·w,

    dx = (g - mean(g) - x̂·mean(g·x̂)) / σ,    dw = Σ dy·x̂,    db = Σ dy

Saved: x̂, 1/σ and w, from which all three gradients follow.
"""

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Shape, Xp
from minigrad.ops.layer_norm import normalised, through_normalised
from minigrad.ops.summation import sum_of


class batch_norm(Op):
    """y = w·(x - μ)/σ + b; see the module's docstring"""

    @staticmethod
    def forward(
        xp: Xp, x: Array, weight: Array | None, bias: Array | None, *, eps: float
    ) -> Result:
        axes = _all_but_channels(x.ndim)
        normal, inverse_std = normalised(xp, x, axes, eps)  # as x, and (1, C, 1, ...)
        y = normal if weight is None else normal * _beside(xp, weight, x)
        y = y if bias is None else y + _beside(xp, bias, x)
        return y, (normal, inverse_std, weight)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs, *, eps: float) -> Gradients:
        normal, inverse_std, weight = saved
        axes = _all_but_channels(dy.ndim)
        dx = None
        if needs[0]:
            g = dy if weight is None else dy * _beside(xp, weight, dy)
            dx = through_normalised(xp, g, normal, inverse_std, axes)
        dweight = sum_of(xp, dy * normal, axes) if needs[1] else None
        dbias = sum_of(xp, dy, axes) if needs[2] else None
        return dx, dweight, dbias


def _all_but_channels(ndim: int) -> Shape:
    return (0, *range(2, ndim))


def _beside(xp: Xp, vector: Array, x: Array) -> Array:
    """(C,) as (C, 1, ...), which broadcasts against x (B, C, ...)."""
    return xp.reshape(vector, (-1, *(1 for _ in range(x.ndim - 2))))
