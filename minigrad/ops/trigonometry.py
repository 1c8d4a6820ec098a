"""Trigonometric and hyperbolic functions, element by element."""

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops import special


class sin(Op):
    """y = sin x;  dx = dy·cos x"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.sin(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy * xp.cos(x),)


class cos(Op):
    """y = cos x;  dx = -dy·sin x"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.cos(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (-dy * xp.sin(x),)


class tan(Op):
    """y = tan x;  dx = dy·(1 + y²)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        y = xp.tan(x)
        return y, y

    @staticmethod
    def backward(xp: Xp, dy: Array, y: Array, needs: Needs) -> Gradients:
        return (dy * (1 + y * y),)


class arcsin(Op):
    """y = arcsin x;  dx = dy/√(1 - x²) = dy/√((1 - x)(1 + x)), which keeps its digits near ±1"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.arcsin(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy / xp.sqrt((1 - x) * (1 + x)),)


class arccos(Op):
    """y = arccos x;  dx = -dy/√((1 - x)(1 + x))"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.arccos(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (-dy / xp.sqrt((1 - x) * (1 + x)),)


class arctan(Op):
    """y = arctan x;  dx = dy/(1 + x²)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.arctan(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        root = xp.hypot(x, 1)  # its square would overflow long before the quotient is 0
        return (dy / root / root,)


class sinh(Op):
    """y = sinh x;  dx = dy·cosh x"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.sinh(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy * xp.cosh(x),)


class cosh(Op):
    """y = cosh x;  dx = dy·sinh x"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.cosh(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy * xp.sinh(x),)


class tanh(Op):
    """y = tanh x;  dx = dy/cosh² x

    That is dy·(1 - y²) as well, but where y is close to 1 the difference keeps no digits.
    """

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.tanh(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy * special.sech_squared(xp, x),)


class arcsinh(Op):
    """y = arsinh x;  dx = dy/√(x² + 1)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.arcsinh(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy / xp.hypot(x, 1),)


class arccosh(Op):
    """y = arcosh x;  dx = dy/√(x² - 1), the root taken of each factor"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.arccosh(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy / (xp.sqrt(x - 1) * xp.sqrt(x + 1)),)


class arctanh(Op):
    """y = artanh x;  dx = dy/(1 - x²)"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.arctanh(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (dy / ((1 - x) * (1 + x)),)


class hypot(Op):
    """z = √(x² + y²);  dx = dz·x/z, dy = dz·y/z, both 0 at the origin"""

    @staticmethod
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        z = xp.hypot(x, y)
        return z, (x, y, z)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
        x, y, z = saved
        z = xp.where(z == 0, 1, z)
        return dz * (x / z) if needs[0] else None, dz * (y / z) if needs[1] else None


class arctan2(Op):
    """z, the angle of the point (x, y);  dy = dz·x/(x² + y²), dx = -dz·y/(x² + y²)"""

    @staticmethod
    def forward(xp: Xp, y: Array, x: Array) -> Result:
        return xp.arctan2(y, x), (y, x)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
        y, x = saved
        r = xp.hypot(x, y)  # the square of it would overflow long before the quotients are 0
        return dz * (x / r) / r if needs[0] else None, -dz * (y / r) / r if needs[1] else None
