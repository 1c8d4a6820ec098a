"""The norms of a model, and the end of a block in one op: linear layer, residual sum, norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad import Tensor, nn
from minigrad.nn import functional as F
from tinyalpaca.config import ModelConfig


def make_norm(config: ModelConfig) -> nn.Module:
    """The normalisation that the configuration asks for."""
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)


def block_end(y: Tensor, linear: Any, residual: Tensor, norm: Any) -> Tensor:
    """norm(linear(y) + residual)"""
    return F.linear_norm(
        *(y, linear.weight, linear.bias, residual, norm.weight, norm.bias), eps=norm.eps
    )


def is_plain(linears: Sequence[Any], norms: Sequence[Any], dropout: Any) -> bool:
    """Whether `block_end` computes what these modules compute: they are the engine's own classes,
    unchanged, and there is no dropout."""
    return (
        all(type(module) is nn.Linear for module in linears)
        and all(type(module) is nn.LayerNorm for module in norms)
        and type(dropout) is nn.Dropout
        and all(module.runs_as_defined() for module in (*linears, *norms, dropout))
        and not (dropout.training and dropout.p)
    )
