"""Pooling: the largest element or the mean of each window, as functions and as layers.

They are made of the engine's own ops (slices, `max`, `mean`), which have gradients. The gradient of
a maximum is shared equally among equal elements.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from minigrad import functions
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_tensor
from minigrad.nn.convolution import Size, per_axis
from minigrad.nn.module import Module
from minigrad.ops.windows import output_size, positions
from minigrad.tensor import Tensor


def max_pool1d(
    x: Any, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1
) -> Tensor:
    """The largest element of each window of x (B, C, L), or (C, L).

    Args:
        kernel_size: length of a window.
        stride: distance between two windows; kernel_size unless given.
        padding: borders of -∞, at most half the kernel.
        dilation: distance between the elements of a window.

    Returns:
        (B, C, out), or (C, out), with out = ⌊(L + 2·padding - dilation·(kernel_size - 1) - 1) /
        stride⌋ + 1. Elements that are left at the end are ignored.

    Raises:
        ShapeError: x does not have these axes, or no window fits.
        ValueError: a setting is out of range.
    """
    return _pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, True)


def max_pool2d(
    x: Any, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1
) -> Tensor:
    """As `max_pool1d` for x (B, C, H, W) or (C, H, W); settings are numbers or pairs."""
    return _pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, True)


def avg_pool1d(
    x: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window; see `max_pool1d`. Borders are zeros.

    Args:
        count_include_pad: whether the zeros count as elements of a window.
    """
    return _pool("avg_pool1d", 1, x, kernel_size, stride, padding, 1, count_include_pad)


def avg_pool2d(
    x: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    count_include_pad: bool = True,
) -> Tensor:
    """As `avg_pool1d` for x (B, C, H, W) or (C, H, W); settings are numbers or pairs."""
    return _pool("avg_pool2d", 2, x, kernel_size, stride, padding, 1, count_include_pad)


def _pool(
    op: str,
    axes: int,
    x: Any,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    count_include_pad: bool,
) -> Tensor:
    x = as_tensor(x)
    if x.ndim == axes + 1:
        return _pool(op, axes, x[None], kernel_size, stride, padding, dilation, count_include_pad)[
            0
        ]
    if x.ndim != axes + 2:
        raise ShapeError(f"{op}: x of shape {x.shape} must have {axes + 2} axes or {axes + 1}")
    kernel = per_axis(op, "kernel_size", kernel_size, axes, 1)
    steps = kernel if stride is None else per_axis(op, "stride", stride, axes, 1)
    apart = per_axis(op, "dilation", dilation, axes, 1)
    borders = per_axis(op, "padding", padding, axes, 0)
    if any(2 * p > k for p, k in zip(borders, kernel, strict=True)):
        raise ValueError(f"{op}: padding {borders} is more than half of the kernel {kernel}")
    largest = op.startswith("max")
    widths = ((0, 0), (0, 0), *((p, p) for p in borders))
    shape = x.shape
    if any(borders):
        x = functions.pad(x, widths, constant_values=-inf if largest else 0)
    out = output_size(x.shape[2:], kernel, steps, apart)
    if min(out) < 1:
        raise ShapeError(f"{op}: no window of {kernel} fits in {x.shape[2:]} elements")
    if steps == kernel and apart == (1,) * axes:
        windows, window_axes = _side_by_side(x, kernel, out)
    else:
        parts = [x[met] for _, met in positions(kernel, out, steps, apart)]
        windows, window_axes = functions.stack(parts), (0,)
    if largest:
        return functions.max(windows, axis=window_axes)
    y = functions.mean(windows, axis=window_axes)
    if count_include_pad or not any(borders):
        return y
    inside = functions.pad(functions.ones(shape, dtype=x.dtype, device=x.device), widths)
    return y / _pool(op, axes, inside, kernel_size, stride, 0, dilation, True)


def _side_by_side(
    x: Tensor, kernel: tuple[int, ...], out: tuple[int, ...]
) -> tuple[Tensor, tuple[int, ...]]:
    """Adjacent windows: (B, C, out₁, kernel₁, out₂, kernel₂), and the axes of the kernel."""
    covered = tuple(slice(n * k) for n, k in zip(out, kernel, strict=True))
    sizes = [n for pair in zip(out, kernel, strict=True) for n in pair]
    windows = functions.reshape(x[(slice(None), slice(None), *covered)], (*x.shape[:2], *sizes))
    return windows, tuple(range(3, windows.ndim, 2))


class _Pool(Module):
    kernel_size: Size
    padding: Size
    stride: Size | None
    pool: Callable[..., Tensor]  # the function that does it

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return type(self).pool(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        stride = self.kernel_size if self.stride is None else self.stride
        return f"{self.kernel_size}, stride={stride}" + (
            f", padding={self.padding}" if self.padding else ""
        )


class MaxPool1d(_Pool):
    """The largest element of each window of (B, C, L). See `nn.functional.max_pool1d`."""

    pool: Callable[..., Tensor] = staticmethod(max_pool1d)


class MaxPool2d(_Pool):
    """The largest element of each window of (B, C, H, W). See `nn.functional.max_pool2d`."""

    pool: Callable[..., Tensor] = staticmethod(max_pool2d)


class AvgPool1d(_Pool):
    """The mean of each window of (B, C, L). See `nn.functional.avg_pool1d`."""

    pool: Callable[..., Tensor] = staticmethod(avg_pool1d)


class AvgPool2d(_Pool):
    """The mean of each window of (B, C, H, W). See `nn.functional.avg_pool2d`."""

    pool: Callable[..., Tensor] = staticmethod(avg_pool2d)
