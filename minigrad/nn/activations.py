"""Activation functions as modules."""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import TYPE_CHECKING

from minigrad import functions
from minigrad.nn.module import Module
from minigrad.tensor import Tensor


class _WithoutSettings(Module):
    """A function as a module, which says so where it is given settings, or its input."""

    if not TYPE_CHECKING:  # a type checker says the same of a module that takes nothing

        def __init__(self, *given, **settings) -> None:
            """Take nothing.

            Raises:
                TypeError: something is given.
            """
            if (given or settings) and type(self).__new__ is object.__new__:
                name = type(self).__name__
                what = next(iter(settings), None) or f"a {type(given[0]).__name__}"
                raise TypeError(f"{name} is made without {what} and then called: {name}()(x)")
            super().__init__()

        __init__.__signature__ = Signature([Parameter("self", Parameter.POSITIONAL_ONLY)])


class ReLU(_WithoutSettings):
    """max(x, 0)"""

    def forward(self, x: Tensor) -> Tensor:
        return functions.relu(x)


class GELU(Module):
    """x·Φ(x), exact ("none") or by the tanh approximation ("tanh").

    Args:
        approximate: "none" or "tanh".

    Raises:
        TypeError: it is not a string, for example the tensor that belongs into the call.
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


class SiLU(_WithoutSettings):
    """x·sigmoid(x)"""

    def forward(self, x: Tensor) -> Tensor:
        return functions.silu(x)


class Sigmoid(_WithoutSettings):
    """1/(1 + e^-x)"""

    def forward(self, x: Tensor) -> Tensor:
        return functions.sigmoid(x)


class Tanh(_WithoutSettings):
    """Hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        return functions.tanh(x)
