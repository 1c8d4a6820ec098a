"""Normalisation over batches and over groups of channels, as functions."""

from __future__ import annotations

from math import prod
from typing import Any

from minigrad import functions, ops
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_float, as_tensor
from minigrad.nn.checks import check_channel_vectors
from minigrad.tensor import Tensor


def batch_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    """Zero mean and unit variance of each channel, scaled and shifted. See `ops.batch_norm`.

    Args:
        x: (B, C) or (B, C, *size).
        running_mean, running_var: (C,) the statistics that are used where `training` is False.
        weight, bias: (C,) or None.
        training: use the batch's own statistics.
        eps: added to the variance.

    Raises:
        ShapeError: a vector does not have C elements, or training on one element a channel.
        ValueError: not in training, and no statistics are given.
    """
    x = as_float(x)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: x must be (B, C, ...), not {x.shape}")
    channels = x.shape[1]
    statistics = {"running_mean": running_mean, "running_var": running_var}
    check_channel_vectors("batch_norm", x, **statistics, weight=weight, bias=bias)
    if training:
        if x.size == channels:
            raise ShapeError(
                f"batch_norm: x of shape {x.shape} has one element a channel, whose variance is 0. "
                "Train on larger batches, or call .eval() to use the running statistics."
            )
        return apply(ops.batch_norm.batch_norm, x, weight, bias, eps=eps)
    if running_mean is None or running_var is None:
        raise ValueError("batch_norm: running_mean and running_var are needed outside of training")
    mean, var = as_tensor(running_mean, like=x), as_tensor(running_var, like=x)
    scale = 1 / functions.sqrt(var + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    spatial = (1,) * (x.ndim - 2)
    return x * scale.reshape(channels, *spatial) + shift.reshape(channels, *spatial)


def group_norm(
    x: Any,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
) -> Tensor:
    """Zero mean and unit variance of each group of channels of each example, scaled and shifted.

    Wu and He, arXiv:1803.08494. It is `layer_norm` over a group's channels and all spatial axes.

    Args:
        x: (B, C) or (B, C, *size).
        num_groups: how many groups; C is a multiple of it.
        weight, bias: (C,) or None.
        eps: added to the variance.

    Raises:
        ShapeError: C cannot be cut into equal groups, or a vector does not have C elements.
    """
    x = as_float(x)
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise ShapeError(
            f"group_norm: x of shape {x.shape} must be (B, C, ...) with C a multiple of "
            f"num_groups={num_groups}"
        )
    channels = x.shape[1]
    check_channel_vectors("group_norm", x, weight=weight, bias=bias)
    size = channels // num_groups * prod(x.shape[2:])
    rows = functions.reshape(x, (x.shape[0], num_groups, size))
    normal = functions.reshape(apply(ops.layer_norm.layer_norm, rows, None, None, eps=eps), x.shape)
    spatial = (1,) * (x.ndim - 2)
    y = normal if weight is None else normal * weight.reshape(channels, *spatial)
    return y if bias is None else y + bias.reshape(channels, *spatial)
