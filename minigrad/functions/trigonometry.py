"""Trigonometric and hyperbolic functions and their inverses. Angles are in radians.

Each inverse has NumPy's older name and the standard's: `arcsin` and `asin`.
"""

from __future__ import annotations

from typing import Any, Final

from minigrad import ops
from minigrad.engine import apply
from minigrad.functions.convert import as_float, as_pair
from minigrad.tensor import Tensor

__all__ = [
    "acos",
    "acosh",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cos",
    "cosh",
    "hypot",
    "sin",
    "sinh",
    "tan",
    "tanh",
]


def sin(x: Any) -> Tensor:
    """Sine of x in radians."""
    return apply(ops.trigonometry.sin, as_float(x))


def cos(x: Any) -> Tensor:
    """Cosine of x in radians."""
    return apply(ops.trigonometry.cos, as_float(x))


def tan(x: Any) -> Tensor:
    """Tangent of x in radians."""
    return apply(ops.trigonometry.tan, as_float(x))


def sinh(x: Any) -> Tensor:
    """Hyperbolic sine."""
    return apply(ops.trigonometry.sinh, as_float(x))


def cosh(x: Any) -> Tensor:
    """Hyperbolic cosine."""
    return apply(ops.trigonometry.cosh, as_float(x))


def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent."""
    return apply(ops.trigonometry.tanh, as_float(x))


def arcsin(x: Any) -> Tensor:
    """The angle in [-π/2, π/2] whose sine is x; NaN beyond [-1, 1]."""
    return apply(ops.trigonometry.arcsin, as_float(x))


def arccos(x: Any) -> Tensor:
    """The angle in [0, π] whose cosine is x; NaN beyond [-1, 1]."""
    return apply(ops.trigonometry.arccos, as_float(x))


def arctan(x: Any) -> Tensor:
    """The angle in (-π/2, π/2) whose tangent is x."""
    return apply(ops.trigonometry.arctan, as_float(x))


def arcsinh(x: Any) -> Tensor:
    """The number whose hyperbolic sine is x."""
    return apply(ops.trigonometry.arcsinh, as_float(x))


def arccosh(x: Any) -> Tensor:
    """The number from 0 on whose hyperbolic cosine is x; NaN below 1."""
    return apply(ops.trigonometry.arccosh, as_float(x))


def arctanh(x: Any) -> Tensor:
    """The number whose hyperbolic tangent is x; NaN beyond [-1, 1]."""
    return apply(ops.trigonometry.arctanh, as_float(x))


def arctan2(y: Any, x: Any) -> Tensor:
    """The angle in [-π, π] of the point (x, y), counted from the x axis."""
    y, x = as_pair(y, x)
    return apply(ops.trigonometry.arctan2, as_float(y), as_float(x))


def hypot(x: Any, y: Any) -> Tensor:
    """√(x² + y²), without overflow on the way."""
    x, y = as_pair(x, y)
    return apply(ops.trigonometry.hypot, as_float(x), as_float(y))


acos: Final = arccos
asin: Final = arcsin
atan: Final = arctan
atan2: Final = arctan2
acosh: Final = arccosh
asinh: Final = arcsinh
atanh: Final = arctanh
