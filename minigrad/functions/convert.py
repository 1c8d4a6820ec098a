"""Converting arguments (tensors, arrays, numbers) to tensors that fit together.

Their dtypes follow the rule of `minigrad.dtypes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.dtypes import DEFAULT_FLOAT, SCALARS, beside, fitting, plain_number, promote
from minigrad.errors import AxisError
from minigrad.graph import require_floats
from minigrad.ops.reduce import normalize_axes
from minigrad.tensor import Tensor


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """`value` as a tensor on the device of `like`, and a scalar in the dtype it has beside it."""
    if isinstance(value, Tensor):
        return value
    if like is None:  # a scalar alone states no dtype either
        return Tensor(plain_number(value) if isinstance(value, np.generic) else value)
    if isinstance(value, SCALARS):
        number = plain_number(value)
        return _number(like, number, beside(like.dtype, number))
    return Tensor(value, device=like.device)


def as_pair(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Two operands as tensors; integers beside floats are floats of the same width."""
    if isinstance(x, Tensor):
        if isinstance(y, Tensor):
            if x.array.dtype is y.array.dtype:  # every operator comes by here
                return x, y
        elif isinstance(y, SCALARS):
            return _with_scalar(x, y)
    elif isinstance(y, Tensor) and isinstance(x, SCALARS):
        y, x = _with_scalar(y, x)
        return x, y
    x, y = as_group(x, y)
    return x, y


def as_group(*values: Any) -> list[Tensor]:
    """Operands as tensors on one device; integers beside floats get the floats' dtype."""
    first = values[0]
    if isinstance(first, Tensor):  # the usual case: tensors of one dtype
        dtype = first.array.dtype
        if all([isinstance(value, Tensor) and value.array.dtype is dtype for value in values]):
            return list(values)
    like = next((value for value in values if isinstance(value, Tensor)), None)
    device = None if like is None else like.device
    found = [
        value
        if isinstance(value, Tensor)
        else plain_number(value)
        if isinstance(value, SCALARS)
        else Tensor(value, device=device)
        for value in values
    ]
    tensors = [value for value in found if isinstance(value, Tensor)]
    if not tensors:
        found = tensors = [Tensor(value) for value in found]
    dtype = promote(*[x.dtype for x in tensors])
    for number in found:
        if not isinstance(number, Tensor):
            dtype = beside(dtype, number)
    return [
        as_dtype(value, dtype) if isinstance(value, Tensor) else _number(tensors[0], value, dtype)
        for value in found
    ]


def as_floats(*values: Any) -> Any:
    """What a layer reads: tensors, arrays or lists as tensors of floats, None as it is.

    Integers get the floats' dtype, float32 if there are none.

    Raises:
        TypeError: the first, which a layer cannot do without, is None.
    """
    if values[0] is None:
        raise TypeError(
            "a tensor is needed, not None, which is what a function without a return gives: look "
            "for one that is missing in a forward()"
        )
    for value in values:
        if value is not None and not (isinstance(value, Tensor) and value.array.dtype.kind == "f"):
            break
    else:
        return values
    tensors = iter(as_group(*(value for value in values if value is not None)))
    return [None if value is None else as_dtype(next(tensors), DEFAULT_FLOAT) for value in values]


def as_float(x: Any) -> Tensor:
    """A float tensor; integers and booleans become float32."""
    if isinstance(x, Tensor) and x.array.dtype.kind == "f":  # the usual case
        return x
    return as_dtype(as_tensor(x), DEFAULT_FLOAT)


def axes_of(op: str, axes: Any, ndim: int) -> tuple[int, ...]:
    """`axes` (None, a number or a sequence) as a tuple of distinct numbers from 0 on.

    Raises:
        AxisError: there is no such axis, or one is given twice.
    """
    try:
        return normalize_axes(axes, ndim)
    except ValueError as error:
        raise AxisError(f"{op}: {error}") from error


def as_dtype(x: Tensor, dtype: np.dtype) -> Tensor:
    """A tensor of integers or booleans in `dtype` if that is one of floats; others as they are."""
    if dtype.kind != "f" or x.dtype.kind == "f":
        return x
    require_floats(x)
    return Tensor.wrap(x.array.astype(dtype))


def _with_scalar(x: Tensor, scalar: Any) -> tuple[Tensor, Tensor]:
    number = plain_number(scalar)
    dtype = beside(x.array.dtype, number)
    return as_dtype(x, dtype), _number(x, number, dtype)


def _number(like: Tensor, number: Any, dtype: np.dtype) -> Tensor:
    return Tensor.wrap(like.device.number(fitting(number, dtype), dtype))
