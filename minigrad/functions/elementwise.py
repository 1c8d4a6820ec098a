"""Element-wise functions. Operands broadcast; numbers and arrays are accepted beside tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad import ops
from minigrad.device import namespace_of
from minigrad.dtypes import BOOL, DEFAULT_INT, SCALARS, beside, fitting, plain_number, real_dtype
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_dtype, as_float, as_group, as_pair, as_tensor
from minigrad.tensor import Tensor


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
        ValueError: integers to a negative power, which are no integers.
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


def negative(x: Any) -> Tensor:
    """-x"""
    return apply(ops.elementwise.negative, as_tensor(x))


def exp(x: Any) -> Tensor:
    """e to the power of x."""
    return apply(ops.elementwise.exp, as_float(x))


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


def sin(x: Any) -> Tensor:
    """Sine of x in radians."""
    return apply(ops.elementwise.sin, as_float(x))


def cos(x: Any) -> Tensor:
    """Cosine of x in radians."""
    return apply(ops.elementwise.cos, as_float(x))


def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent."""
    return apply(ops.elementwise.tanh, as_float(x))


def erf(x: Any) -> Tensor:
    """The error function 2/√π ∫₀ˣ e^(-t²) dt."""
    return apply(ops.elementwise.erf, as_float(x))


def normal_cdf(x: Any) -> Tensor:
    """(1 + erf(x/√2))/2, the standard normal distribution function, exact in its tail too."""
    return apply(ops.elementwise.normal_cdf, as_float(x))


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


def astype(x: Any, dtype: Any) -> Tensor:
    """x in another dtype, a copy unless it has that dtype already.

    Raises:
        TypeError: no tensor can have that dtype.
    """
    x = as_tensor(x)
    dtype = real_dtype(dtype)
    return x if x.dtype == dtype else apply(ops.elementwise.astype, x, dtype=dtype)


def relu(x: Any) -> Tensor:
    """max(x, 0)"""
    return apply(ops.elementwise.relu, as_tensor(x))


def sigmoid(x: Any) -> Tensor:
    """1/(1 + e^-x)"""
    return apply(ops.elementwise.sigmoid, as_float(x))


def softplus(x: Any, beta: float = 1.0) -> Tensor:
    """ln(1 + e^(βx))/β, a smooth max(x, 0). Exact at any x, so there is no threshold.

    Raises:
        ValueError: beta is not positive.
    """
    if not beta > 0:
        raise ValueError(f"softplus: beta must be positive, not {beta}")
    x = as_float(x)
    return (
        apply(ops.elementwise.softplus, x)
        if beta == 1
        else apply(ops.elementwise.softplus, x * beta) / beta
    )


def logsigmoid(x: Any) -> Tensor:
    """ln sigmoid(x) = -softplus(-x), exact where sigmoid(x) is close to 0 or 1."""
    return -softplus(-as_float(x))


def silu(x: Any) -> Tensor:
    """x·sigmoid(x)"""
    return apply(ops.elementwise.silu, as_float(x))


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """x·Φ(x), exact, or with `approximate="tanh"` the tanh approximation.

    Raises:
        ValueError: `approximate` is neither "none" nor "tanh".
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f'gelu: approximate must be "none" or "tanh", not {approximate!r}')
    return apply(ops.elementwise.gelu, as_float(x), approximate=approximate)


def stop_gradient(x: Tensor) -> Tensor:
    """x as a constant: no gradient flows through."""
    return x.detach()


# Functions with no gradient: comparisons and tests.


def _compared(name: str, x: Any, y: Any) -> Tensor:
    """Scalars go to NumPy as Python numbers: it compares them exactly with any dtype."""
    like = x if isinstance(x, Tensor) else y if isinstance(y, Tensor) else None
    left, right = (
        plain_number(v) if isinstance(v, SCALARS) else as_tensor(v, like).array for v in (x, y)
    )
    xp = np if like is None else like.device.xp
    try:
        return Tensor.wrap(xp.asarray(getattr(xp, name)(left, right)))
    except ValueError as error:
        raise ShapeError(f"{name} of shapes {xp.shape(left)} and {xp.shape(right)}") from error


def _looked_at(name: str, x: Any) -> Tensor:
    """A function of one array that has no gradient."""
    x = as_tensor(x)
    xp = namespace_of(x.array)
    return Tensor.wrap(xp.asarray(getattr(xp, name)(x.array)))


def equal(x: Any, y: Any) -> Tensor:
    """x == y, element by element."""
    return _compared("equal", x, y)


def not_equal(x: Any, y: Any) -> Tensor:
    """x != y, element by element."""
    return _compared("not_equal", x, y)


def less(x: Any, y: Any) -> Tensor:
    """x < y, element by element."""
    return _compared("less", x, y)


def less_equal(x: Any, y: Any) -> Tensor:
    """x <= y, element by element."""
    return _compared("less_equal", x, y)


def greater(x: Any, y: Any) -> Tensor:
    """x > y, element by element."""
    return _compared("greater", x, y)


def greater_equal(x: Any, y: Any) -> Tensor:
    """x >= y, element by element."""
    return _compared("greater_equal", x, y)


def logical_and(x: Any, y: Any) -> Tensor:
    """True where both are."""
    return _compared("logical_and", x, y)


def logical_or(x: Any, y: Any) -> Tensor:
    """True where at least one is."""
    return _compared("logical_or", x, y)


def logical_not(x: Any) -> Tensor:
    """True where x is False or 0."""
    return _looked_at("logical_not", x)


def isfinite(x: Any) -> Tensor:
    """True where x is neither NaN nor infinite."""
    return _looked_at("isfinite", x)


def sign(x: Any) -> Tensor:
    """-1, 0 or 1. Flat almost everywhere, so no gradient flows through."""
    return _looked_at("sign", x)
