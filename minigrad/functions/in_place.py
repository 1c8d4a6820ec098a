"""The in-place operators `+=`, `-=`, `*=`, `/=`, `**=`, `@=`, `&=` and `|=` of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad import functions as F
from minigrad.errors import InPlaceError, ShapeError
from minigrad.state import STATE
from minigrad.tensor import Tensor


def change(name: str, x: Tensor, y: Any) -> Tensor:
    """`x` after `x op= y`, where `name` is the function behind the operator.

    A tensor outside of any graph is changed in place, as a NumPy array is, so its views change too.
    Under `no_grad()`, so is a leaf that requires a gradient. If the result belongs to a graph,
    because `x` is the result of an op or `y` is in a graph, it is a new tensor, as that of
    `x = x op y`, and no memory is written.

    Raises:
        InPlaceError: `x` is a leaf that requires a gradient, and gradients are recorded; or it is
            the result of a recorded op, and they are not.
        ShapeError: broadcasting would give the result another shape than `x` has.
        TypeError: x's dtype cannot hold the result: integers and floats, for example.
    """
    if STATE.grad_enabled and x.requires_grad and x.node is None:
        raise InPlaceError(
            f"{name}: this leaf of shape {x.shape} requires a gradient, so it cannot be changed in "
            "place while ops are recorded. Change it in a `with minigrad.no_grad():` block, or "
            "make a new tensor, as in y = x + 1."
        )
    if not STATE.grad_enabled and x.node is not None:
        raise InPlaceError(
            f"{name}: this tensor of shape {x.shape} is the result of {x.node.op.name!r} in a "
            "graph, which cannot follow a change under no_grad(). Make a new tensor, as in "
            "y = x + 1, or change a copy of .detach()."
        )
    result = getattr(F, name)(x, y)
    if result.requires_grad:
        return result
    if result.shape != x.shape:
        raise ShapeError(
            f"{name} in place: the result has shape {result.shape}, the tensor {x.shape}. Make a "
            "new tensor, as in y = x + z."
        )
    if not np.can_cast(result.dtype, x.dtype, "same_kind"):
        raise TypeError(
            f"{name} in place: a tensor of dtype {x.dtype} cannot hold a result of dtype "
            f"{result.dtype}. Convert it first, with .astype({str(result.dtype)!r})."
        )
    x.array[...] = result.array
    x.changed()
    return x
