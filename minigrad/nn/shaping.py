"""Layers that compute nothing: they return their input, as it is or in another shape."""

from __future__ import annotations

from typing import Any

from minigrad.errors import ShapeError
from minigrad.functions import reshape
from minigrad.functions.convert import as_tensor
from minigrad.nn.module import Module
from minigrad.tensor import Tensor


class Identity(Module):
    """y = x, to replace a layer by nothing."""

    def forward(self, x: Any) -> Any:
        return x


class Flatten(Module):
    """Several axes joined to one, by default all but the first (the batch).

    Args:
        start_dim, end_dim: the first and the last of the axes that are joined.
    """

    start_dim: int
    end_dim: int

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Tensor:
        """(B, 2, 3) -> (B, 6)

        Raises:
            ShapeError: x does not have these axes.
        """
        x = as_tensor(x)
        first, last = (d + x.ndim if d < 0 else d for d in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < x.ndim:
            raise ShapeError(
                f"Flatten: x of shape {x.shape} has no axes {self.start_dim} to {self.end_dim}"
            )
        joined = 1
        for size in x.shape[first : last + 1]:
            joined *= size
        return reshape(x, (*x.shape[:first], joined, *x.shape[last + 1 :]))

    def extra_repr(self) -> str:
        return f"{self.start_dim} to {self.end_dim}"
