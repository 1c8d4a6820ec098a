"""Arithmetic, exponentials and choices, element by element.

Operands broadcast; numbers and arrays are accepted beside tensors.
"""

from __future__ import annotations

from typing import Any, Final

from minigrad import ops
from minigrad.device import Device
from minigrad.dtypes import BOOL, DEFAULT_INT, SCALARS, beside, fitting, plain_number, real_dtype
from minigrad.engine import apply
from minigrad.functions.convert import as_dtype, as_float, as_group, as_pair, as_tensor
from minigrad.tensor import Tensor

__all__ = [
    "abs",
    "add",
    "astype",
    "clip",
    "clone",
    "divide",
    "exp",
    "expm1",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "positive",
    "pow",
    "power",
    "reciprocal",
    "sqrt",
    "square",
    "stop_gradient",
    "subtract",
    "where",
]


def add(x: Any, y: Any) -> Tensor:
    """x + y"""
    return apply(ops.elementwise.add, *as_pair(x, y))


def subtract(x: Any, y: Any) -> Tensor:
    """x - y

    Raises:
        TypeError: both are booleans.
    """
    x, y = as_pair(x, y)
    if x.dtype == BOOL and y.dtype == BOOL:
        raise TypeError(
            "booleans have no difference: use x != y to see where they differ, or .astype('int64')"
        )
    return apply(ops.elementwise.subtract, x, y)


def multiply(x: Any, y: Any) -> Tensor:
    """x·y"""
    return apply(ops.elementwise.multiply, *as_pair(x, y))


def divide(x: Any, y: Any) -> Tensor:
    """x / y. Integers are divided as float32."""
    x, y = as_pair(x, y)
    if x.dtype.kind != "f" and y.dtype.kind != "f":
        x = as_float(x)
        y = as_float(y)
    return apply(ops.elementwise.divide, x, y)


def power(x: Any, y: Any) -> Tensor:
    """x to the power of y; y may be a number or a tensor. Booleans are counted as int64.

    Raises:
        ValueError: an integer to a negative power, because the result is not an integer.
    """
    if isinstance(x, Tensor) and isinstance(y, SCALARS):
        exponent = plain_number(y)
        if x.array.dtype.kind == "f":
            return apply(ops.elementwise.power_scalar, x, exponent=exponent)
        x = _counted(as_dtype(x, beside(x.dtype, exponent)))
        if x.dtype.kind != "f":
            _require_no_negative(exponent, exponent < 0)
            fitting(exponent, x.dtype)
        return apply(ops.elementwise.power_scalar, x, exponent=exponent)
    x, y = as_pair(x, y)
    x = _counted(x) if y.dtype == BOOL else x
    if x.dtype.kind in "iu" and y.dtype.kind == "i":
        _require_no_negative("a tensor with negative elements", bool((y.array < 0).any()))
    return apply(ops.elementwise.power, x, y)


def _counted(x: Tensor) -> Tensor:
    return Tensor.wrap(x.array.astype(DEFAULT_INT)) if x.dtype == BOOL else x


def _require_no_negative(exponent: Any, negative: bool) -> None:
    if negative:
        raise ValueError(
            f"integers to the power of {exponent} are no integers: use .astype('float32') first"
        )


pow: Final = power


def negative(x: Any) -> Tensor:
    """-x"""
    return apply(ops.elementwise.negative, as_tensor(x))


def positive(x: Any) -> Tensor:
    """+x, in new memory."""
    return clone(x)


def square(x: Any) -> Tensor:
    """x·x"""
    x = as_tensor(x)
    return multiply(x, x)


def reciprocal(x: Any) -> Tensor:
    """1/x. Integers are divided as float32."""
    return divide(1, x)


def exp(x: Any) -> Tensor:
    """e to the power of x."""
    return apply(ops.elementwise.exp, as_float(x))


def log2(x: Any) -> Tensor:
    """Logarithm to base 2, exact where x is a power of 2."""
    return apply(ops.elementwise.log2, as_float(x))


def log10(x: Any) -> Tensor:
    """Logarithm to base 10."""
    return apply(ops.elementwise.log10, as_float(x))


def logaddexp(x: Any, y: Any) -> Tensor:
    """ln(e^x + e^y), without overflow."""
    x, y = as_pair(x, y)
    return apply(ops.elementwise.logaddexp, as_float(x), as_float(y))


def expm1(x: Any) -> Tensor:
    """e to the power of x, minus 1: exact near 0, where the difference would cancel."""
    return apply(ops.elementwise.expm1, as_float(x))


def log(x: Any) -> Tensor:
    """Natural logarithm."""
    return apply(ops.elementwise.log, as_float(x))


def log1p(x: Any) -> Tensor:
    """Natural logarithm of 1 + x: exact near 0, where the sum would be 1."""
    return apply(ops.elementwise.log1p, as_float(x))


def sqrt(x: Any) -> Tensor:
    """Square root."""
    return apply(ops.elementwise.sqrt_, as_float(x))


def abs(x: Any) -> Tensor:
    """|x|, with gradient 0 at 0."""
    return apply(ops.elementwise.abs_, as_tensor(x))


def maximum(x: Any, y: Any) -> Tensor:
    """The larger of x and y; equal elements share the gradient."""
    return apply(ops.elementwise.maximum, *as_pair(x, y))


def minimum(x: Any, y: Any) -> Tensor:
    """The smaller of x and y; equal elements share the gradient."""
    return apply(ops.elementwise.minimum, *as_pair(x, y))


def clip(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """x limited to [min, max]; None leaves a side open. The limits may be tensors.

    At a limit the gradient is x's. Where the limits cross, `max` counts.
    """
    if min is None and max is None:
        return as_tensor(x)
    if all(limit is None or isinstance(limit, SCALARS) for limit in (min, max)):
        x = as_tensor(x)
        low, high = (None if limit is None else plain_number(limit) for limit in (min, max))
        for number in (low, high):
            if number is not None:
                x = as_dtype(x, beside(x.dtype, number))
                x = x if isinstance(number, bool) else _counted(x)
        low, high = (None if limit is None else fitting(limit, x.dtype) for limit in (low, high))
        return apply(ops.elementwise.clip, x, low=low, high=high)
    x, *limits = as_group(*(operand for operand in (x, min, max) if operand is not None))
    lower = None if min is None else limits[0]
    return apply(ops.elementwise.clip_between, x, lower, None if max is None else limits[-1])


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where the condition holds, y elsewhere."""
    if not isinstance(condition, Tensor):
        like = x if isinstance(x, Tensor) else y if isinstance(y, Tensor) else None
        condition = as_tensor(condition, like)
    placed = isinstance(x, Tensor) or isinstance(y, Tensor)
    x, y = as_pair(x, y)
    if not placed:
        x, y = x.to(condition.device), y.to(condition.device)
    return apply(ops.elementwise.where, condition, x, y)


def astype(x: Any, dtype: Any, *, copy: bool = True, device: Device | str | None = None) -> Tensor:
    """x in another dtype, and on another device if one is given.

    It is new memory. With `copy=False` it is x itself if that has the dtype already.

    Raises:
        TypeError: no tensor can have that dtype.
    """
    x = as_tensor(x)
    x = x if device is None else x.to(device)
    dtype = real_dtype(dtype)
    if x.dtype != dtype:
        return apply(ops.elementwise.astype, x, dtype=dtype)
    return clone(x) if copy else x


def clone(x: Any) -> Tensor:
    """x in new memory, in the graph of x."""
    return apply(ops.elementwise.clone, as_tensor(x))


def stop_gradient(x: Any) -> Tensor:
    """x as a constant: no gradient flows through."""
    return as_tensor(x).detach()
