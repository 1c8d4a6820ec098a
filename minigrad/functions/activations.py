"""Activation functions, and the distribution functions that they are made of."""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.engine import apply
from minigrad.functions.convert import as_float, as_tensor
from minigrad.tensor import Tensor

__all__ = [
    "erf",
    "gelu",
    "logsigmoid",
    "normal_cdf",
    "relu",
    "sigmoid",
    "silu",
    "softplus",
]


def relu(x: Any) -> Tensor:
    """max(x, 0)"""
    return apply(ops.activations.relu, as_tensor(x))


def sigmoid(x: Any) -> Tensor:
    """1/(1 + e^-x)"""
    return apply(ops.activations.sigmoid, as_float(x))


def softplus(x: Any, beta: float = 1.0) -> Tensor:
    """ln(1 + e^(βx))/β, a smooth max(x, 0). Exact at any x, so there is no threshold.

    Raises:
        ValueError: beta is not positive.
    """
    if not beta > 0:
        raise ValueError(f"softplus: beta must be positive, not {beta}")
    x = as_float(x)
    return (
        apply(ops.activations.softplus, x)
        if beta == 1
        else apply(ops.activations.softplus, x * beta) / beta
    )


def logsigmoid(x: Any) -> Tensor:
    """ln sigmoid(x) = -softplus(-x), exact where sigmoid(x) is close to 0 or 1."""
    return -softplus(-as_float(x))


def silu(x: Any) -> Tensor:
    """x·sigmoid(x)"""
    return apply(ops.activations.silu, as_float(x))


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """x·Φ(x), exact, or with `approximate="tanh"` the tanh approximation.

    Raises:
        ValueError: `approximate` is neither "none" nor "tanh".
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f'gelu: approximate must be "none" or "tanh", not {approximate!r}')
    return apply(ops.activations.gelu, as_float(x), approximate=approximate)


def erf(x: Any) -> Tensor:
    """The error function 2/√π ∫₀ˣ e^(-t²) dt."""
    return apply(ops.activations.erf, as_float(x))


def normal_cdf(x: Any) -> Tensor:
    """(1 + erf(x/√2))/2, the standard normal distribution function, exact in its tail too."""
    return apply(ops.activations.normal_cdf, as_float(x))
