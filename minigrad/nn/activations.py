"""Activation functions as modules."""

from __future__ import annotations

from minigrad import functions
from minigrad.nn.module import Module
from minigrad.tensor import Tensor


class ReLU(Module):
    """max(x, 0)"""

    def forward(self, x: Tensor) -> Tensor:
        return functions.relu(x)


class GELU(Module):
    """x·Φ(x), exact ("none") or by the tanh approximation ("tanh").

    Args:
        approximate: "none" or "tanh".

    Raises:
        TypeError: it is no string, as when the tensor is given that belongs into the call.
    """

    def __init__(self, approximate: str = "none") -> None:
        if not isinstance(approximate, str):
            kind = type(approximate).__name__
            raise TypeError(f"GELU is made without a {kind} and then called: GELU()(x)")
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return functions.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x·sigmoid(x)"""

    def forward(self, x: Tensor) -> Tensor:
        return functions.silu(x)


class Sigmoid(Module):
    """1/(1 + e^-x)"""

    def forward(self, x: Tensor) -> Tensor:
        return functions.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        return functions.tanh(x)
