"""Layers that normalise over batches or groups of channels. See `minigrad.nn.normalization`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.errors import ShapeError
from minigrad.functions import ones, zeros
from minigrad.nn.module import Module, Parameter
from minigrad.nn.normalization import batch_norm, group_norm
from minigrad.ops.summation import centred, mean_of
from minigrad.tensor import Tensor


class _BatchNorm(Module):
    eps: float
    momentum: float | None
    axes: tuple[int, ...] = ()
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: Any = np.float32,
    ) -> None:
        if num_features < 1:
            raise ValueError(
                f"{type(self).__name__}: num_features must be at least 1, it is {num_features}"
            )
        self.eps, self.momentum = eps, momentum
        self.weight: Parameter | None = Parameter(ones(num_features, dtype)) if affine else None
        self.bias: Parameter | None = Parameter(zeros(num_features, dtype)) if affine else None
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, dtype) if tracked else None)
        self.register_buffer("running_var", ones(num_features, dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", zeros((), "int64") if tracked else None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape"""
        if x.ndim not in self.axes:
            raise ShapeError(
                f"{type(self).__name__}: x of shape {x.shape} must have "
                f"{' or '.join(map(str, self.axes))} axes"
            )
        mean, var = self.running_mean, self.running_var
        own = self.training or mean is None
        y = batch_norm(x, mean, var, self.weight, self.bias, training=own, eps=self.eps)
        if self.training and mean is not None:
            self._track(x)
        return y

    def _track(self, x: Tensor) -> None:
        """Move the running statistics towards those of this batch, the variance with n - 1."""
        array, xp = x.array, x.device.xp
        axes = (0, *range(2, array.ndim))
        distance = centred(xp, array, axes)
        count = array.size // array.shape[1]
        mean = mean_of(xp, array, axes)
        var = mean_of(xp, distance * distance, axes) * (count / (count - 1))
        assert self.num_batches_tracked is not None
        number = int(self.num_batches_tracked.item()) + 1
        self.num_batches_tracked.assign(np.asarray(number))
        share = 1 / number if self.momentum is None else self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, var)):
            assert running is not None
            running.array[...] = (1 - share) * running.array + share * value
            running.changed()

    def extra_repr(self) -> str:
        size = self.running_mean if self.weight is None else self.weight
        return f"{'' if size is None else f'{size.size}, '}eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    """Zero mean and unit variance of each channel over a batch (B, C) or (B, C, L).

    In training the batch's own statistics are used, and running averages of them are kept in
    buffers, which are used in evaluation. With n elements a channel, the running variance is that
    with n - 1, as PyTorch's.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: share of the new batch in the running averages; None for the mean of all batches.
        affine: whether there is a scale and a shift.
        track_running_stats: False uses the batch's own statistics in evaluation as well.
    """

    axes: tuple[int, ...] = (2, 3)


class BatchNorm2d(_BatchNorm):
    """As `BatchNorm1d`, for images (B, C, H, W)."""

    axes: tuple[int, ...] = (4,)


class GroupNorm(Module):
    """Zero mean and unit variance of each group of channels, scaled and shifted channel by channel.

    Args:
        num_groups: how many groups.
        num_channels: C, a multiple of it.
        eps: added to the variance.
        affine: whether there is a scale and a shift.
    """

    num_groups: int
    eps: float

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: Any = np.float32,
    ) -> None:
        if num_groups < 1 or num_channels < 1 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: {num_channels} channels cannot be cut into {num_groups} equal groups"
            )
        self.num_groups, self.eps = num_groups, eps
        self.num_channels = num_channels
        self.weight: Parameter | None = Parameter(ones(num_channels, dtype)) if affine else None
        self.bias: Parameter | None = Parameter(zeros(num_channels, dtype)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape"""
        return group_norm(x, self.num_groups, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"
