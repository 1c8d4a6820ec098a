"""Layers with parameters. Initial values are PyTorch's unless said otherwise."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from minigrad.functions import add, ones, zeros
from minigrad.functions.convert import as_tensor
from minigrad.nn import functional as F
from minigrad.nn.checks import check_probability, check_rng, row_of_padding
from minigrad.nn.module import Module, Parameter
from minigrad.random import Generator
from minigrad.state import no_grad
from minigrad.tensor import Tensor


class Linear(Module):
    """y = x Wᵀ + b.

    W (out_features, in_features) and b (out_features,) are drawn uniformly from ±1/√in_features.

    Args:
        in_features: size of x's last axis.
        out_features: size of y's last axis.
        bias: whether there is a b.
        rng: source of the initial values.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: Generator,
        dtype: Any = np.float32,
    ) -> None:
        _check_sizes(in_features=in_features, out_features=out_features)
        check_rng("Linear", rng)
        bound = 1 / sqrt(in_features)
        shape = (out_features, in_features)
        self.weight: Parameter = Parameter(rng.uniform(shape, -bound, bound, dtype))
        self.bias: Parameter | None = (
            Parameter(rng.uniform(out_features, -bound, bound, dtype)) if bias else None
        )

    def forward(self, x: Tensor, activation: str | None = None) -> Tensor:
        """(..., in_features) -> (..., out_features). The op also applies `activation="relu"`."""
        return F.linear(x, self.weight, self.bias, activation=activation)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"{in_features} -> {out_features}" + ("" if self.bias is not None else ", no bias")


class Embedding(Module):
    """A table of vectors, one for each id.

    Args:
        num_embeddings: how many ids.
        embedding_dim: size of a vector.
        padding_idx: an id for padding: its vector starts as 0 and gets no gradient. A negative
            number counts from the end.
        std: standard deviation of the initial values.
        rng: source of the initial values.

    Raises:
        IndexError: there is no vector for padding_idx.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        std: float = 1.0,
        rng: Generator,
        dtype: Any = np.float32,
    ) -> None:
        _check_sizes(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        check_rng("Embedding", rng)
        self.weight: Parameter = Parameter(
            rng.normal((num_embeddings, embedding_dim), 0.0, std, dtype)
        )
        self.padding_idx = padding_idx
        if padding_idx is not None:
            self.padding_idx = row_of_padding(padding_idx, num_embeddings)
            with no_grad():
                self.weight[self.padding_idx] = 0

    def forward(self, ids: Any, positions: Tensor | None = None) -> Tensor:
        """ids (...) -> (..., embedding_dim); see `minigrad.nn.functional.embedding`"""
        return F.embedding(self.weight, ids, positions, padding_idx=self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.weight.shape[0]} x {self.weight.shape[1]}{padding}"


class LayerNorm(Module):
    """Zero mean and unit variance along the last axis, then scaled and shifted.

    Args:
        size: of the last axis.
        eps: added to the variance.
        bias: whether there is a shift.
    """

    def __init__(
        self, size: int, eps: float = 1e-5, bias: bool = True, *, dtype: Any = np.float32
    ) -> None:
        _check_sizes(size=size)
        self.weight: Parameter = Parameter(ones(size, dtype))
        self.bias: Parameter | None = Parameter(zeros(size, dtype)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """LN(x), or LN(x + residual) in one op."""
        if residual is None:
            return F.layer_norm(x, self.weight, self.bias, eps=self.eps)
        return F.add_layer_norm(x, residual, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.size}, eps={self.eps}"


class RMSNorm(Module):
    """Unit root mean square along the last axis, then scaled.

    Args:
        size: of the last axis.
        eps: added to the mean square.
    """

    def __init__(self, size: int, eps: float = 1e-5, *, dtype: Any = np.float32) -> None:
        _check_sizes(size=size)
        self.weight: Parameter = Parameter(ones(size, dtype))
        self.eps = eps

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """RMSNorm(x), or RMSNorm(x + residual)."""
        if residual is not None:
            x = add(x, residual)
        return F.rms_norm(x, self.weight, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.size}, eps={self.eps}"


class Dropout(Module):
    """In training, sets elements to 0 with probability p and divides the others by 1 - p.

    Args:
        p: probability in [0, 1).
        rng: source of the masks.
    """

    def __init__(self, p: float, *, rng: Generator) -> None:
        check_probability(p)
        self.p = p
        self.rng = rng

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return as_tensor(x)
        return F.dropout(x, self.p, rng=self.rng)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer):
            raise TypeError(f"{name} must be an integer, not {size!r}")
        if size < 1:
            raise ValueError(f"{name} must be at least 1, it is {size}")
