"""Layer normalisation (Ba, Kiros and Hinton, arXiv:1607.06450) and its relatives.

    y = w·x̂ + b,   x̂ = (x - μ)/σ,   μ = mean(x),   σ = √(var(x) + ε)    over the last axis

Shapes: x (..., C), weight w (C,) or None for 1, bias b (C,) or None for 0, y (..., C).

μ and σ depend on every element of a row, so with g = dy·w, the gradient of x̂,

    dx = (g - mean(g) - x̂·mean(g·x̂)) / σ:

x̂ does not change when the row is shifted or scaled, so backward removes those parts of g.
Over all rows, dw = Σ dy·x̂ and db = Σ dy.

Saved: x̂, 1/σ and w, from which all three gradients follow.
"""

from minigrad.op import Array, Axis, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.summation import centred, mean_of, sum_of


class layer_norm(Op):
    """y = w·x̂ + b; see the module's docstring"""

    @staticmethod
    def forward(
        xp: Xp, x: Array, weight: Array | None, bias: Array | None, *, eps: float
    ) -> Result:
        normal, inverse_std = normalised(xp, x, -1, eps)
        return _scaled(normal, weight, bias), (normal, inverse_std, weight)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs, *, eps: float) -> Gradients:
        normal, inverse_std, weight = saved
        dx = None
        if needs[0]:
            g = dy if weight is None else dy * weight
            dx = through_normalised(xp, g, normal, inverse_std, -1)
        dweight = _sum_rows(xp, dy * normal) if needs[1] else None
        dbias = _sum_rows(xp, dy) if needs[2] else None
        return dx, dweight, dbias


class add_layer_norm(Op):
    """y = LN(x + r): a residual sum and the norm after it. x and r get the same gradient."""

    @staticmethod
    def forward(
        xp: Xp, x: Array, residual: Array, weight: Array | None, bias: Array | None, *, eps: float
    ) -> Result:
        return layer_norm.forward(xp, x + residual, weight, bias, eps=eps)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs, *, eps: float) -> Gradients:
        wanted = (needs[0] or needs[1], needs[2], needs[3])
        dx, dweight, dbias = layer_norm.backward(xp, dy, saved, wanted, eps=eps)
        return dx, dx, dweight, dbias


class rms_norm(Op):
    """y = w·x/ρ with ρ = √(mean(x²) + ε): no mean, no bias (Zhang and Sennrich, arXiv:1910.07467)

    With g = dy·w and x̂ = x/ρ:  dx = (g - x̂·mean(g·x̂))/ρ,  dw = Σ dy·x̂ over all rows.
    """

    @staticmethod
    def forward(xp: Xp, x: Array, weight: Array | None, *, eps: float) -> Result:
        inverse_rms = 1 / xp.sqrt(mean_of(xp, x * x, -1, keepdims=True) + eps)
        normal = x * inverse_rms
        return _scaled(normal, weight, None), (normal, inverse_rms, weight)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs, *, eps: float) -> Gradients:
        normal, inverse_rms, weight = saved
        dx = None
        if needs[0]:
            g = dy if weight is None else dy * weight
            dx = (g - normal * mean_of(xp, g * normal, -1, keepdims=True)) * inverse_rms
        return dx, _sum_rows(xp, dy * normal) if needs[1] else None


def normalised(xp: Xp, x: Array, axis: Axis, eps: float) -> tuple[Array, Array]:
    """x̂ of x, over one axis or several, and 1/σ, where these axes have size 1."""
    distance = centred(xp, x, axis)
    variance = mean_of(xp, distance * distance, axis, keepdims=True)
    inverse_std = 1 / xp.sqrt(variance + eps)
    return distance * inverse_std, inverse_std


def through_normalised(xp: Xp, g: Array, normal: Array, inverse_std: Array, axis: Axis) -> Array:
    """dx of `normalised`, from g, the gradient of x̂; see the module's docstring."""
    along = mean_of(xp, g * normal, axis, keepdims=True)
    return (g - mean_of(xp, g, axis, keepdims=True) - normal * along) * inverse_std


def _scaled(normal: Array, weight: Array | None, bias: Array | None) -> Array:
    y = normal if weight is None else normal * weight
    return y if bias is None else y + bias


def _sum_rows(xp: Xp, x: Array) -> Array:
    """Sum over all axes but the last: (..., C) -> (C,)"""
    return sum_of(xp, x, tuple(range(x.ndim - 1)))
