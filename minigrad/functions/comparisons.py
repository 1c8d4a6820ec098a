"""Comparisons, tests and operations on bits. Their results have no gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.dtypes import BOOL
from minigrad.functions.convert import as_float, as_pair, as_tensor
from minigrad.functions.outside import of_arrays, of_one, of_two
from minigrad.tensor import Tensor

__all__ = [
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "equal",
    "greater",
    "greater_equal",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "not_equal",
    "signbit",
]


def equal(x: Any, y: Any) -> Tensor:
    """x == y, element by element."""
    return of_two("equal", x, y)


def not_equal(x: Any, y: Any) -> Tensor:
    """x != y, element by element."""
    return of_two("not_equal", x, y)


def less(x: Any, y: Any) -> Tensor:
    """x < y, element by element."""
    return of_two("less", x, y)


def less_equal(x: Any, y: Any) -> Tensor:
    """x <= y, element by element."""
    return of_two("less_equal", x, y)


def greater(x: Any, y: Any) -> Tensor:
    """x > y, element by element."""
    return of_two("greater", x, y)


def greater_equal(x: Any, y: Any) -> Tensor:
    """x >= y, element by element."""
    return of_two("greater_equal", x, y)


def logical_and(x: Any, y: Any) -> Tensor:
    """True where both are."""
    return of_two("logical_and", x, y)


def logical_or(x: Any, y: Any) -> Tensor:
    """True where at least one is."""
    return of_two("logical_or", x, y)


def logical_xor(x: Any, y: Any) -> Tensor:
    """True where one is and the other is not."""
    return of_two("logical_xor", x, y)


def logical_not(x: Any) -> Tensor:
    """True where x is False or 0."""
    return of_one("logical_not", x)


def isfinite(x: Any) -> Tensor:
    """True where x is neither NaN nor infinite."""
    return of_one("isfinite", x)


def isinf(x: Any) -> Tensor:
    """True where x is infinite."""
    return of_one("isinf", x)


def isnan(x: Any) -> Tensor:
    """True where x is NaN."""
    return of_one("isnan", x)


def signbit(x: Any) -> Tensor:
    """True where the sign of x is negative, which -0.0 has as well."""
    return of_one("signbit", as_float(x))


def bitwise_and(x: Any, y: Any) -> Tensor:
    """The bits that are set in both, of integers; True where both are, of booleans."""
    return _of_bits("bitwise_and", x, y)


def bitwise_or(x: Any, y: Any) -> Tensor:
    """The bits that are set in at least one, of integers; True where one is, of booleans."""
    return _of_bits("bitwise_or", x, y)


def bitwise_xor(x: Any, y: Any) -> Tensor:
    """The bits that are set in one alone, of integers; True where they differ, of booleans."""
    return _of_bits("bitwise_xor", x, y)


def bitwise_left_shift(x: Any, y: Any) -> Tensor:
    """The bits of integers x moved up by y places."""
    return _of_bits("left_shift", x, y, "iu")


def bitwise_right_shift(x: Any, y: Any) -> Tensor:
    """The bits of integers x moved down by y places; the sign stays."""
    return _of_bits("right_shift", x, y, "iu")


def bitwise_invert(x: Any) -> Tensor:
    """All bits of integers inverted; the opposite of booleans."""
    x = as_tensor(x)
    _require_bits("invert", x.dtype, "biu")
    return of_one("invert", x)


def _of_bits(name: str, x: Any, y: Any, kinds: str = "biu") -> Tensor:
    x, y = as_pair(x, y)
    for operand in (x, y):
        _require_bits(name, operand.dtype, kinds)
    return of_arrays(name, x.device.xp, x.array, y.array)


def _require_bits(name: str, dtype: np.dtype, kinds: str) -> None:
    if dtype.kind not in kinds:
        raise TypeError(
            f"{name} works on bits, of integers{' or booleans' if 'b' in kinds else ''}, not on "
            f"{dtype}. "
            + (
                "Convert it with .astype('int64')."
                if dtype == BOOL
                else "Compare first, as in (x > 0) & (x < 1), or use minigrad.logical_and, "
                "logical_or and logical_not."
            )
        )
