"""Convolutions: as functions, and as layers with weights."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions import pad
from minigrad.functions.convert import as_floats
from minigrad.nn.checks import check_rng
from minigrad.nn.module import Module, Parameter
from minigrad.ops.windows import output_size
from minigrad.random import Generator
from minigrad.tensor import Tensor

Size = int | tuple[int, ...]


def conv1d(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution along one axis, with PyTorch's arguments. See `minigrad.ops.convolution`.

    Args:
        x: (B, C, L), or (C, L).
        weight: (O, C/groups, K).
        bias: (O,) or None.
        stride: distance between two positions of the kernel.
        padding: zeros at both ends; "same" keeps the length (with stride 1), "valid" adds none.
        dilation: distance between the elements that the kernel multiplies.
        groups: independent groups of channels.

    Returns:
        (B, O, out), or (O, out).

    Raises:
        ShapeError: the shapes do not fit, or the kernel is larger than the padded input.
        ValueError: a setting is out of range.
    """
    return _convolution("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution along two axes: as `conv1d` with x (B, C, H, W) and weight (O, C/groups, K, L).

    `stride`, `padding` and `dilation` are numbers, or pairs for the two axes.
    """
    return _convolution("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def per_axis(op: str, name: str, value: Size, axes: int, least: int) -> tuple[int, ...]:
    """A number, or a tuple with one for each spatial axis, as a tuple."""
    values = (value,) * axes if isinstance(value, (int, np.integer)) else tuple(value)
    if len(values) != axes or any(v < least for v in values):
        raise ValueError(
            f"{op}: {name} must be a number from {least} on, or {axes} of them, not {value!r}"
        )
    return tuple(int(v) for v in values)


def _convolution(
    op: str,
    axes: int,
    x: Any,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Size | str,
    dilation: Size,
    groups: int,
) -> Tensor:
    x, weight, bias = as_floats(x, weight, bias)
    if weight.ndim != axes + 2 or x.ndim not in (axes + 1, axes + 2):
        raise ShapeError(
            f"{op}: x of shape {x.shape} and weight of shape {weight.shape}: x must have "
            f"{axes + 2} axes (B, C, ...) or {axes + 1}, weight {axes + 2} (O, C/groups, ...)"
        )
    if x.ndim == axes + 1:
        single = _convolution(op, axes, x[None], weight, bias, stride, padding, dilation, groups)
        return single[0]
    channels, kernel = x.shape[1], weight.shape[2:]
    if groups < 1 or channels != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ShapeError(
            f"{op}: {channels} channels of x in {groups} group(s) do not fit weight of shape "
            f"{weight.shape}: it must be (O, {channels}/groups, ...), with O a multiple of groups"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"{op}: bias of shape {bias.shape} for weight of shape {weight.shape}")
    steps = per_axis(op, "stride", stride, axes, 1)
    apart = per_axis(op, "dilation", dilation, axes, 1)
    if padding == "same":
        x, borders = _same(op, x, kernel, steps, apart), (0,) * axes
    elif isinstance(padding, str) and padding != "valid":
        raise ValueError(f'{op}: padding must be a number, "same" or "valid", not {padding!r}')
    else:
        borders = per_axis(op, "padding", 0 if isinstance(padding, str) else padding, axes, 0)
    padded = [n + 2 * p for n, p in zip(x.shape[2:], borders, strict=True)]
    if min(output_size(padded, kernel, steps, apart)) < 1:
        raise ShapeError(
            f"{op}: a kernel of {kernel} with dilation {apart} is larger than the padded input of "
            f"{tuple(padded)}"
        )
    return apply(
        ops.convolution.convolution,
        x,
        weight,
        bias,
        stride=steps,
        padding=borders,
        dilation=apart,
        groups=groups,
    )


def _same(
    op: str, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Tensor:
    """x with so many zeros that the output is as long; if odd, one more at the end."""
    if any(s != 1 for s in stride):
        raise ValueError(f'{op}: padding="same" needs stride 1, not {stride}')
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return pad(x, ((0, 0), (0, 0), *((total // 2, total - total // 2) for total in totals)))


class _Conv(Module):
    """What Conv1d and Conv2d share. Initial values are PyTorch's: uniform in ±1/√fan_in."""

    stride: Size
    dilation: Size
    padding: Size | str

    axes = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        rng: Generator,
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        kernel = per_axis(name, "kernel_size", kernel_size, self.axes, 1)
        if min(in_channels, out_channels, groups) < 1:
            raise ValueError(
                f"{name}: in_channels, out_channels and groups must be at least 1, they are "
                f"{in_channels}, {out_channels} and {groups}"
            )
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: {in_channels} and {out_channels} channels cannot be cut into {groups} "
                "equal groups"
            )
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups = groups
        check_rng(name, rng)
        shape = (out_channels, in_channels // groups, *kernel)
        bound = 1 / sqrt(prod(shape[1:]))
        self.weight: Parameter = Parameter(rng.uniform(shape, -bound, bound, dtype))
        self.bias: Parameter | None = (
            Parameter(rng.uniform(out_channels, -bound, bound, dtype)) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *size) -> (B, out_channels, *out), or both without B."""
        convolve = conv1d if self.axes == 1 else conv2d
        return convolve(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        out_channels, in_channels, *kernel = self.weight.shape
        text = f"{in_channels * self.groups} -> {out_channels}, kernel {tuple(kernel)}"
        defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        text += "".join(
            f", {k}={getattr(self, k)}" for k, v in defaults.items() if getattr(self, k) != v
        )
        return text + ("" if self.bias is not None else ", no bias")


class Conv1d(_Conv):
    """Convolution along one axis. See `minigrad.nn.functional.conv1d` for the settings.

    Args:
        in_channels, out_channels: sizes of the channel axes of x and y.
        kernel_size: length of the kernel.
        bias: whether there is a b.
        rng: source of the initial values.
    """

    axes = 1


class Conv2d(_Conv):
    """Convolution along two axes: as `Conv1d`, with numbers or pairs for the settings."""

    axes = 2
