"""Element-wise ops: each output element depends on one element of each input.

Inputs broadcast as NumPy's do. A gradient is returned in the output's shape; the engine sums it
over the axes along which an input was broadcast.
"""

from math import inf, pi, sqrt

from minigrad.op import Op
from minigrad.ops import special


class add(Op):
    """z = x + y;  dx = dz, dy = dz"""

    @staticmethod
    def forward(xp, x, y):
        return x + y, None

    @staticmethod
    def backward(xp, dz, saved, needs):
        return dz, dz


class subtract(Op):
    """z = x - y;  dx = dz, dy = -dz"""

    @staticmethod
    def forward(xp, x, y):
        return x - y, None

    @staticmethod
    def backward(xp, dz, saved, needs):
        return dz, -dz if needs[1] else None


class multiply(Op):
    """z = x·y;  dx = dz·y, dy = dz·x"""

    @staticmethod
    def forward(xp, x, y):
        return x * y, (x, y)

    @staticmethod
    def backward(xp, dz, saved, needs):
        x, y = saved
        return dz * y if needs[0] else None, dz * x if needs[1] else None


class divide(Op):
    """z = x/y;  dx = dz/y, dy = -dz·x/y²"""

    @staticmethod
    def forward(xp, x, y):
        return x / y, (x, y)

    @staticmethod
    def backward(xp, dz, saved, needs):
        x, y = saved
        # (x/y)/y, because y² leaves the range of floats long before the quotient does
        return dz / y if needs[0] else None, -dz * (x / y) / y if needs[1] else None


class power(Op):
    """z = x^y;  dx = dz·y·x^(y-1), dy = dz·x^y·ln x

    Where x = 0 the exponent's gradient is 0 for y >= 0, as x^y is flat there, and -inf for y < 0.
    """

    @staticmethod
    def forward(xp, x, y):
        return xp.power(x, y), (x, y)

    @staticmethod
    def backward(xp, dz, saved, needs):
        x, y = saved
        dx = dy = None
        if needs[0]:
            # x^(y-1) at y = 0 would be 1/x, infinite at x = 0, where the true derivative is 0.
            dx = dz * y * xp.power(x, xp.where(y == 0, 1, y) - 1)
        if needs[1]:
            infinite = (x == 0) & (y < 0)
            log_x = xp.where(infinite, -inf, xp.log(xp.where(x == 0, 1, x)))
            dy = dz * xp.power(xp.where(infinite, 1, x), y) * log_x
        return dx, dy


class power_scalar(Op):
    """y = x^p for a number p;  dx = dy·p·x^(p-1)"""

    @staticmethod
    def forward(xp, x, *, exponent):
        return x**exponent, x

    @staticmethod
    def backward(xp, dy, x, needs, *, exponent):
        if exponent == 0:
            return (dy * 0,)
        return (dy * exponent * x ** (exponent - 1),)


class negative(Op):
    """y = -x;  dx = -dy"""

    exact = True

    @staticmethod
    def forward(xp, x):
        return -x, None

    @staticmethod
    def backward(xp, dy, saved, needs):
        return (-dy,)


class exp(Op):
    """y = e^x;  dx = dy·y"""

    @staticmethod
    def forward(xp, x):
        y = xp.exp(x)
        return y, y

    @staticmethod
    def backward(xp, dy, y, needs):
        return (dy * y,)


class expm1(Op):
    """y = e^x - 1, exact near 0;  dx = dy·e^x"""

    @staticmethod
    def forward(xp, x):
        return xp.expm1(x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (dy * xp.exp(x),)


class log(Op):
    """y = ln x;  dx = dy/x"""

    @staticmethod
    def forward(xp, x):
        return xp.log(x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (dy / x,)


class log1p(Op):
    """y = ln(1 + x), exact near 0;  dx = dy/(1 + x)"""

    @staticmethod
    def forward(xp, x):
        return xp.log1p(x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (dy / (1 + x),)


class sqrt_(Op):
    """y = √x;  dx = dy/(2y)"""

    @staticmethod
    def forward(xp, x):
        y = xp.sqrt(x)
        return y, y

    @staticmethod
    def backward(xp, dy, y, needs):
        return (dy / (2 * y),)


class sin(Op):
    """y = sin x;  dx = dy·cos x"""

    @staticmethod
    def forward(xp, x):
        return xp.sin(x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (dy * xp.cos(x),)


class cos(Op):
    """y = cos x;  dx = -dy·sin x"""

    @staticmethod
    def forward(xp, x):
        return xp.cos(x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (-dy * xp.sin(x),)


class tanh(Op):
    """y = tanh x;  dx = dy/cosh² x

    That is dy·(1 - y²) as well, but where y is close to 1 the difference keeps no digits.
    """

    @staticmethod
    def forward(xp, x):
        return xp.tanh(x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (dy * special.sech_squared(xp, x),)


class abs_(Op):
    """y = |x|;  dx = dy·sign(x), 0 at x = 0"""

    exact = True

    @staticmethod
    def forward(xp, x):
        return xp.abs(x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (dy * xp.sign(x),)


class erf(Op):
    """y = erf x = 2/√π ∫₀ˣ e^(-t²) dt;  dx = dy·2/√π·e^(-x²)"""

    @staticmethod
    def forward(xp, x):
        return special.erf(xp, x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (dy * (2 / sqrt(pi)) * special.gaussian(xp, x, 1.0),)


class normal_cdf(Op):
    """y = Φ(x) = (1 + erf(x/√2))/2, the standard normal distribution;  dx = dy·e^(-x²/2)/√(2π)"""

    @staticmethod
    def forward(xp, x):
        return special.normal_cdf(xp, x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (dy * (1 / sqrt(2 * pi)) * special.gaussian(xp, x, 0.5),)


class maximum(Op):
    """z = max(x, y);  the larger input gets dz; both get half where they are equal

    NaN is neither smaller nor larger: z is NaN beside one, and both inputs get dz, as in PyTorch.
    """

    exact = True

    @staticmethod
    def forward(xp, x, y):
        return xp.maximum(x, y), (x, y)

    @staticmethod
    def backward(xp, dz, saved, needs):
        x, y = saved
        half = dz * 0.5
        dx = xp.where(x < y, 0, xp.where(x == y, half, dz)) if needs[0] else None
        dy = xp.where(y < x, 0, xp.where(x == y, half, dz)) if needs[1] else None
        return dx, dy


class minimum(Op):
    """z = min(x, y);  the smaller input gets dz; both get half where they are equal

    As with `maximum`, both inputs get dz beside a NaN.
    """

    exact = True

    @staticmethod
    def forward(xp, x, y):
        return xp.minimum(x, y), (x, y)

    @staticmethod
    def backward(xp, dz, saved, needs):
        x, y = saved
        half = dz * 0.5
        dx = xp.where(x > y, 0, xp.where(x == y, half, dz)) if needs[0] else None
        dy = xp.where(y > x, 0, xp.where(x == y, half, dz)) if needs[1] else None
        return dx, dy


class clip(Op):
    """y = min(max(x, low), high) for numbers low and high;  dx = dy where low <= x <= high"""

    @staticmethod
    def forward(xp, x, *, low, high):
        return xp.clip(x, low, high), x

    @staticmethod
    def backward(xp, dy, x, needs, *, low, high):
        if low is not None:
            dy = xp.where(x < low, 0, dy)
        if high is not None:
            dy = xp.where(x > high, 0, dy)
        return (dy,)


class clip_between(Op):
    """y = min(max(x, low), high) for arrays low and high, or None for an open side

    dy goes to the one that was chosen: x where low <= x <= high, else the limit that x passes.
    """

    @staticmethod
    def forward(xp, x, low, high):
        return xp.clip(x, low, high), (x, low, high)

    @staticmethod
    def backward(xp, dy, saved, needs):
        x, low, high = saved
        dx, dlow, dhigh = dy, None, None
        raised = x if low is None else xp.maximum(x, low)
        if high is not None:
            dhigh = xp.where(raised > high, dy, 0)
            dx = xp.where(raised > high, 0, dx)
        if low is not None:
            dlow = xp.where(x < low, dx, 0)
            dx = xp.where(x < low, 0, dx)
        return dx, dlow, dhigh


class where(Op):
    """z = x where the condition holds, else y;  dz goes to the one that was chosen"""

    exact = True

    @staticmethod
    def forward(xp, condition, x, y):
        return xp.where(condition, x, y), condition

    @staticmethod
    def backward(xp, dz, condition, needs):
        dx = xp.where(condition, dz, 0) if needs[1] else None
        dy = xp.where(condition, 0, dz) if needs[2] else None
        return None, dx, dy


class astype(Op):
    """y = x in another dtype;  dx = dy in x's dtype"""

    exact = True

    @staticmethod
    def forward(xp, x, *, dtype):
        return x.astype(dtype), x.dtype

    @staticmethod
    def backward(xp, dy, x_dtype, needs, *, dtype):
        return (dy.astype(x_dtype),)


class relu(Op):
    """y = max(x, 0);  dx = 0 where x <= 0, else dy (Nair and Hinton, 2010). NaN passes through."""

    exact = True

    @staticmethod
    def forward(xp, x):
        return xp.maximum(x, 0), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (xp.where(x <= 0, 0, dy),)


class sigmoid(Op):
    """y = σ(x) = 1/(1 + e^-x);  dx = dy·σ(x)·σ(-x)"""

    @staticmethod
    def forward(xp, x):
        y, rest = special.logistic_pair(xp, x)
        return y, (y, rest)

    @staticmethod
    def backward(xp, dy, saved, needs):
        y, rest = saved
        return (dy * y * rest,)


class softplus(Op):
    """y = ln(1 + e^x);  dx = dy·σ(x)"""

    @staticmethod
    def forward(xp, x):
        return special.softplus(xp, x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (dy * special.logistic(xp, x),)


class silu(Op):
    """y = x·σ(x);  dx = dy·σ(x)·(1 + x·σ(-x)) (Elfwing, Uchibe and Doya, 2017)"""

    @staticmethod
    def forward(xp, x):
        s, rest = special.logistic_pair(xp, x)
        return x * s, (x, s, rest)

    @staticmethod
    def backward(xp, dy, saved, needs):
        x, s, rest = saved
        return (dy * s * (1 + x * rest),)


class gelu(Op):
    """y = x·Φ(x), Φ the standard normal distribution (Hendrycks and Gimpel, arXiv:1606.08415)

    exact:  dx = dy·(Φ + x·φ),  φ(x) = e^(-x²/2)/√(2π)
    tanh:   Φ(x) ≈ (1 + tanh u)/2 = σ(2u),  u = √(2/π)·(x + 0.044715 x³),
            dx = dy·σ(2u)·(1 + x·σ(-2u)·2u'),  u' = √(2/π)·(1 + 3·0.044715 x²)
    """

    @staticmethod
    def forward(xp, x, *, approximate):
        if approximate == "tanh":
            near = xp.clip(x, -special.FAR, special.FAR)  # further out σ is 0 or 1
            doubled = near * (SLOPE + SLOPE * CUBIC * near * near)  # 2u
            s, rest = special.logistic_pair(xp, doubled)
            return x * s, (near, s, rest)
        cdf = special.normal_cdf(xp, x)
        return x * cdf, (x, cdf)

    @staticmethod
    def backward(xp, dy, saved, needs, *, approximate):
        if approximate == "tanh":
            near, s, rest = saved
            slope = SLOPE + 3 * SLOPE * CUBIC * near * near
            return (dy * s * (1 + near * rest * slope),)
        x, cdf = saved
        density = (1 / sqrt(2 * pi)) * special.gaussian(xp, x, 0.5)
        return (dy * (cdf + x * density),)


SLOPE, CUBIC = 2 * sqrt(2 / pi), 0.044715  # 2u = x·(SLOPE + SLOPE·CUBIC·x²)
