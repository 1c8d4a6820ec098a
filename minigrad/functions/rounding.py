"""Rounding, signs and remainders. What is flat almost everywhere lets no gradient through."""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.dtypes import BOOL, promote
from minigrad.engine import apply
from minigrad.functions.comparisons import isinf, signbit
from minigrad.functions.convert import as_float, as_pair, as_tensor
from minigrad.functions.elementwise import astype, divide, negative, where
from minigrad.functions.outside import of_arrays, of_one
from minigrad.state import STATE
from minigrad.tensor import Tensor

__all__ = [
    "ceil",
    "copysign",
    "floor",
    "floor_divide",
    "nextafter",
    "remainder",
    "round",
    "sign",
    "trunc",
]


def floor(x: Any) -> Tensor:
    """The nearest whole number at or below x."""
    return _rounded("floor", x)


def ceil(x: Any) -> Tensor:
    """The nearest whole number at or above x."""
    return _rounded("ceil", x)


def trunc(x: Any) -> Tensor:
    """The whole number that is left of x without its fraction."""
    return _rounded("trunc", x)


def round(x: Any, decimals: int = 0) -> Tensor:
    """x to so many decimals; of two that are equally near, the even one."""
    return _rounded("round", x, decimals=decimals) if decimals else _rounded("rint", x)


def _rounded(name: str, x: Any, **options: Any) -> Tensor:
    """Integers and booleans are whole already, but NumPy makes floats of some of them."""
    x = as_tensor(x)
    if x.dtype.kind == "f" or (x.dtype != BOOL and options.get("decimals", 0) < 0):
        return of_one(name, x, **options)
    return Tensor.wrap(x.array.copy())


def sign(x: Any) -> Tensor:
    """-1, 0 or 1. Flat almost everywhere, so no gradient flows through."""
    return of_one("sign", x)


def floor_divide(x: Any, y: Any) -> Tensor:
    """floor(x/y), as the operator //. Flat almost everywhere, so no gradient flows through.

    NumPy checks the remainder, so that a rounded quotient is not taken for a whole number. But
    where x or y is infinite the standard wants the floor of the quotient; NumPy gives NaN or -1.
    """
    x, y = as_pair(x, y)
    _require_numbers("//", x, y)
    whole = of_arrays("floor_divide", x.device.xp, x.array, y.array)
    infinite = isinf(x) | isinf(y) if whole.dtype.kind == "f" else None
    if infinite is None or not infinite.array.any():
        return whole
    return where(infinite, floor(divide(x, y)), whole)


def remainder(x: Any, y: Any) -> Tensor:
    """x - floor(x/y)·y, as the operator %: of the sign of y.

    Raises:
        TypeError: both are booleans.
    """
    x, y = as_pair(x, y)
    _require_numbers("%", x, y)
    return apply(ops.elementwise.remainder, x, y)


def _require_numbers(symbol: str, x: Tensor, y: Tensor) -> None:
    if x.dtype == BOOL and y.dtype == BOOL:
        raise TypeError(f"booleans have no {symbol}: convert them with .astype('int64')")


def copysign(x: Any, y: Any) -> Tensor:
    """|x| with the sign of y."""
    x, y = as_pair(x, y)
    x, y = as_float(x), as_float(y)
    x = astype(x, promote(x.dtype, y.dtype), copy=False)
    return where(signbit(x) == signbit(y), x, negative(x))


def nextafter(x: Any, y: Any) -> Tensor:
    """The next number after x towards y, of those that their dtype has.

    Raises:
        TypeError: x is in a graph: the steps of a dtype are no function to differentiate.
    """
    x, y = as_pair(x, y)
    if STATE.grad_enabled and (x.requires_grad or y.requires_grad):
        raise TypeError("nextafter has no gradient: use .numpy() or .detach() where none is needed")
    return of_arrays("nextafter", x.device.xp, as_float(x).array, as_float(y).array)
