"""Products along an axis, and cumulative sums and products."""

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.summation import running


class prod(Op):
    """y = Π x over the last axis;  dx_i = dy·(Π of those before i)·(Π of those after i)

    That is dy·y/x_i, but it needs no division, so that x may contain zeros.
    """

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.prod(x, axis=-1), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (xp.expand_dims(dy, -1) * products_of_others(xp, x),)


class cumsum(Op):
    """y_i = Σ_{j≤i} x_j along `axis`;  dx_j = Σ_{i≥j} dy_i"""

    @staticmethod
    def forward(xp: Xp, x: Array, *, axis: int) -> Result:
        return running(xp, "cumsum", x, axis), None

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs, *, axis: int) -> Gradients:
        return (_backwards(running(xp, "cumsum", _backwards(dy, axis), axis), axis),)


class cumprod(Op):
    """y_i = Π_{j≤i} x_j along the last axis

    dx_j = Σ_{i≥j} dy_i·(Π_{k≤i} x_k without x_j) = (Π_{k<j} x_k)·r_j, where r_j is a sum from the
    end: r_j = dy_j + x_{j+1}·r_{j+1}. It needs no division, so that x may contain zeros.

    All r_j are computed in log₂ N rounds (Hillis and Steele, 1986). If r_j covers the next s
    elements, and m_j = x_{j+1}·…·x_{j+s}, then r_j + m_j·r_{j+s} covers 2s.
    """

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return running(xp, "cumprod", x, -1), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        r, m, size, s = dy, x[..., 1:], x.shape[-1], 1
        while s < size:
            r = xp.concatenate([r[..., :-s] + m * r[..., s:], r[..., -s:]], axis=-1)
            m = m[..., : max(size - 2 * s, 0)] * m[..., s:]
            s *= 2
        return (_before(xp, x) * r,)


def products_of_others(xp: Xp, x: Array) -> Array:
    """For each element of the last axis, the product of all others."""
    return _before(xp, x) * _backwards(_before(xp, _backwards(x)))


def _before(xp: Xp, x: Array) -> Array:
    """For each element of the last axis, the product of those before it: 1 for the first."""
    products = running(xp, "cumprod", x, -1)
    return xp.concatenate([xp.ones_like(x[..., :1]), products[..., :-1]], axis=-1)


def _backwards(x: Array, axis: int = -1) -> Array:
    at = [slice(None)] * x.ndim
    at[axis] = slice(None, None, -1)
    return x[tuple(at)]
