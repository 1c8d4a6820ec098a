"""NumPy's functions whose results are outside of any graph.

They give booleans or integers, or are flat wherever they have a derivative, so that no gradient
could flow through them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import namespace_of
from minigrad.dtypes import SCALARS, plain_number
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_tensor
from minigrad.tensor import Tensor


def of_one(name: str, x: Any, **options: Any) -> Tensor:
    """NumPy's function `name` of one tensor."""
    x = as_tensor(x)
    xp = namespace_of(x.array)
    try:
        return Tensor.wrap(xp.asarray(getattr(xp, name)(x.array, **options)))
    except ValueError as error:
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ShapeError(f"{name} of shape {x.shape} with {given}: {error}") from error


def of_two(name: str, x: Any, y: Any) -> Tensor:
    """NumPy's function `name` of two operands that broadcast, of which it needs no common dtype.

    Scalars go to NumPy as Python numbers: it compares them exactly with any dtype.
    """
    like = x if isinstance(x, Tensor) else y if isinstance(y, Tensor) else None
    left, right = (
        plain_number(v) if isinstance(v, SCALARS) else as_tensor(v, like).array for v in (x, y)
    )
    return of_arrays(name, np if like is None else like.device.xp, left, right)


def of_arrays(name: str, xp: Any, left: Any, right: Any) -> Tensor:
    """The same of arrays, or of an array and a number."""
    try:
        return Tensor.wrap(xp.asarray(getattr(xp, name)(left, right)))
    except ValueError as error:
        raise ShapeError(f"{name} of shapes {xp.shape(left)} and {xp.shape(right)}") from error
