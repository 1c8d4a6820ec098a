"""Activation functions and the normal distribution, element by element."""

from math import pi, sqrt

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops import special

SLOPE, CUBIC = 2 * sqrt(2 / pi), 0.044715  # 2u = x·(SLOPE + SLOPE·CUBIC·x²)


class erf(Op):
    """y = erf x = 2/√π ∫₀ˣ e^(-t²) dt;  dx = dy·2/√π·e^(-x²)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return special.erf(xp, x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy * (2 / sqrt(pi)) * special.gaussian(xp, x, 1.0),)


class normal_cdf(Op):
    """y = Φ(x) = (1 + erf(x/√2))/2, the standard normal distribution;  dx = dy·e^(-x²/2)/√(2π)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return special.normal_cdf(xp, x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy * (1 / sqrt(2 * pi)) * special.gaussian(xp, x, 0.5),)


class relu(Op):
    """y = max(x, 0);  dx = 0 where x <= 0, else dy (Nair and Hinton, 2010). NaN passes through."""

    exact = True

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.maximum(x, 0), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (xp.where(x <= 0, 0, dy),)


class sigmoid(Op):
    """y = σ(x) = 1/(1 + e^-x);  dx = dy·σ(x)·σ(-x)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        y, rest = special.logistic_pair(xp, x)
        return y, (y, rest)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs) -> Gradients:
        y, rest = saved
        return (dy * y * rest,)


class softplus(Op):
    """y = ln(1 + e^x);  dx = dy·σ(x)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return special.softplus(xp, x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy * special.logistic(xp, x),)


class silu(Op):
    """y = x·σ(x);  dx = dy·σ(x)·(1 + x·σ(-x)) (Elfwing, Uchibe and Doya, 2017)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        s, rest = special.logistic_pair(xp, x)
        return x * s, (x, s, rest)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs) -> Gradients:
        x, s, rest = saved
        return (dy * s * (1 + x * rest),)


class gelu(Op):
    """y = x·Φ(x), Φ the standard normal distribution (Hendrycks and Gimpel, arXiv:1606.08415)

    exact:  dx = dy·(Φ + x·φ),  φ(x) = e^(-x²/2)/√(2π)
    tanh:   Φ(x) ≈ (1 + tanh u)/2 = σ(2u),  u = √(2/π)·(x + 0.044715 x³),
            dx = dy·σ(2u)·(1 + x·σ(-2u)·2u'),  u' = √(2/π)·(1 + 3·0.044715 x²)
    """

    @staticmethod
    def forward(xp: Xp, x: Array, *, approximate: str) -> Result:
        if approximate == "tanh":
            near = xp.clip(x, -special.FAR, special.FAR)  # further out σ is 0 or 1
            doubled = near * (SLOPE + SLOPE * CUBIC * near * near)  # 2u
            s, rest = special.logistic_pair(xp, doubled)
            return x * s, (near, s, rest)
        cdf = special.normal_cdf(xp, x)
        return x * cdf, (x, cdf)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs, *, approximate: str) -> Gradients:
        if approximate == "tanh":
            near, s, rest = saved
            slope = SLOPE + 3 * SLOPE * CUBIC * near * near
            return (dy * s * (1 + near * rest * slope),)
        x, cdf = saved
        density = (1 / sqrt(2 * pi)) * special.gaussian(xp, x, 0.5)
        return (dy * (cdf + x * density),)
