"""Element-wise ops: each output element depends on one element of each input.

Inputs broadcast as NumPy's do. A gradient is returned in the output's shape; the engine sums it
over the axes along which an input was broadcast.
"""

from math import inf
from math import log as ln
from typing import Any

import numpy as np

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops import special

LN_2, LN_10 = ln(2), ln(10)


class add(Op):
    """z = x + y;  dx = dz, dy = dz"""

    @staticmethod
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        return x + y, None

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
        return dz, dz


class subtract(Op):
    """z = x - y;  dx = dz, dy = -dz"""

    @staticmethod
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        return x - y, None

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
        return dz, -dz if needs[1] else None


class multiply(Op):
    """z = x·y;  dx = dz·y, dy = dz·x"""

    @staticmethod
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        return x * y, (x, y)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
        x, y = saved
        return dz * y if needs[0] else None, dz * x if needs[1] else None


class divide(Op):
    """z = x/y;  dx = dz/y, dy = -dz·x/y²"""

    @staticmethod
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        return x / y, (x, y)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
        x, y = saved
        # (x/y)/y, because y² leaves the range of floats long before the quotient does
        return dz / y if needs[0] else None, -dz * (x / y) / y if needs[1] else None


class remainder(Op):
    """z = x - ⌊x/y⌋·y, which has the sign of y;  dx = dz, dy = -dz·⌊x/y⌋

    ⌊x/y⌋ counts as a constant, although it jumps.
    """

    @staticmethod
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        return xp.remainder(x, y), (x, y)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
        x, y = saved
        return dz, -dz * xp.floor_divide(x, y) if needs[1] else None


class power(Op):
    """z = x^y;  dx = dz·y·x^(y-1), dy = dz·x^y·ln x

    Where x = 0 the exponent's gradient is 0 for y >= 0, as x^y is flat there, and -inf for y < 0.
    """

    @staticmethod
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        return xp.power(x, y), (x, y)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
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
    def forward(xp: Xp, x: Array, *, exponent: float) -> Result:
        return x**exponent, x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs, *, exponent: float) -> Gradients:
        if exponent == 0:
            return (dy * 0,)
        return (dy * exponent * x ** (exponent - 1),)


class negative(Op):
    """y = -x;  dx = -dy"""

    exact = True

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return -x, None

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs) -> Gradients:
        return (-dy,)


class exp(Op):
    """y = e^x;  dx = dy·y"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        y = xp.exp(x)
        return y, y

    @staticmethod
    def backward(xp: Xp, dy: Array, y: Array, needs: Needs) -> Gradients:
        return (dy * y,)


class expm1(Op):
    """y = e^x - 1, exact near 0;  dx = dy·e^x"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.expm1(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy * xp.exp(x),)


class log(Op):
    """y = ln x;  dx = dy/x"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.log(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy / x,)


class log1p(Op):
    """y = ln(1 + x), exact near 0;  dx = dy/(1 + x)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.log1p(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy / (1 + x),)


class log2(Op):
    """y = log₂ x;  dx = dy/(x·ln 2)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.log2(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy / x / LN_2,)


class log10(Op):
    """y = log₁₀ x;  dx = dy/(x·ln 10)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.log10(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy / x / LN_10,)


class logaddexp(Op):
    """z = ln(e^x + e^y);  dx = dz·σ(x - y), dy = dz·σ(y - x)"""

    @staticmethod
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        return xp.logaddexp(x, y), (x, y)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
        x, y = saved
        same = (x == y) & xp.isinf(x)  # they share the gradient, but have no difference
        share, rest = special.logistic_pair(xp, xp.where(same, 0, x) - xp.where(same, 0, y))
        return dz * share, dz * rest


class sqrt_(Op):
    """y = √x;  dx = dy/(2y)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        y = xp.sqrt(x)
        return y, y

    @staticmethod
    def backward(xp: Xp, dy: Array, y: Array, needs: Needs) -> Gradients:
        return (dy / (2 * y),)


class abs_(Op):
    """y = |x|;  dx = dy·sign(x), 0 at x = 0"""

    exact = True

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.abs(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy * xp.sign(x),)


class maximum(Op):
    """z = max(x, y);  the larger input gets dz; both get half where they are equal

    NaN is neither smaller nor larger: z is NaN beside one, and both inputs get dz, as in PyTorch.
    """

    exact = True

    @staticmethod
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        return xp.maximum(x, y), (x, y)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
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
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        return xp.minimum(x, y), (x, y)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
        x, y = saved
        half = dz * 0.5
        dx = xp.where(x > y, 0, xp.where(x == y, half, dz)) if needs[0] else None
        dy = xp.where(y > x, 0, xp.where(x == y, half, dz)) if needs[1] else None
        return dx, dy


class clip(Op):
    """y = min(max(x, low), high) for numbers low and high;  dx = dy where low <= x <= high"""

    @staticmethod
    def forward(xp: Xp, x: Array, *, low: float | None, high: float | None) -> Result:
        return xp.clip(x, low, high), x

    @staticmethod
    def backward(
        xp: Xp, dy: Array, x: Array, needs: Needs, *, low: float | None, high: float | None
    ) -> Gradients:
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
    def forward(xp: Xp, x: Array, low: Array, high: Array) -> Result:
        return xp.clip(x, low, high), (x, low, high)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs) -> Gradients:
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
    def forward(xp: Xp, condition: Array, x: Array, y: Array) -> Result:
        return xp.where(condition, x, y), condition

    @staticmethod
    def backward(xp: Xp, dz: Array, condition: Any, needs: Needs) -> Gradients:
        dx = xp.where(condition, dz, 0) if needs[1] else None
        dy = xp.where(condition, 0, dz) if needs[2] else None
        return None, dx, dy


class astype(Op):
    """y = x in another dtype;  dx = dy in x's dtype"""

    exact = True

    @staticmethod
    def forward(xp: Xp, x: Array, *, dtype: np.dtype[Any]) -> Result:
        return x.astype(dtype), x.dtype

    @staticmethod
    def backward(
        xp: Xp, dy: Array, x_dtype: Any, needs: Needs, *, dtype: np.dtype[Any]
    ) -> Gradients:
        return (dy.astype(x_dtype),)


class clone(Op):
    """y = x in new memory;  dx = dy"""

    exact = True

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return x.copy(), None

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs) -> Gradients:
        return (dy,)
