"""New tensors. The dtype is float32 and the device the CPU unless given."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigrad.device import CPU, Device
from minigrad.tensor import Tensor


class _Default(threading.local):
    device: Device = CPU


_DEFAULT = _Default()


@contextmanager
def default_device(device: Device | str) -> Iterator[None]:
    """Context manager: creation functions without `device` make tensors on this device."""
    before = _DEFAULT.device
    _DEFAULT.device = Device(device)
    try:
        yield
    finally:
        _DEFAULT.device = before


def _make(array: np.ndarray, device: Device | str | None, requires_grad: bool) -> Tensor:
    target = _DEFAULT.device if device is None else device
    return Tensor(array, device=target, requires_grad=requires_grad)


def asarray(
    data: Any,
    dtype: Any = None,
    *,
    device: Device | str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`data` (an array, numbers, nested lists) as a tensor; an array is not copied."""
    return Tensor(data, dtype, device=device, requires_grad=requires_grad)


def zeros(
    shape: int | Sequence[int],
    dtype: Any = np.float32,
    *,
    device: Device | str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of zeros."""
    return _make(np.zeros(shape, dtype), device, requires_grad)


def ones(
    shape: int | Sequence[int],
    dtype: Any = np.float32,
    *,
    device: Device | str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of ones."""
    return _make(np.ones(shape, dtype), device, requires_grad)


def full(
    shape: int | Sequence[int],
    value: Any,
    dtype: Any = np.float32,
    *,
    device: Device | str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor filled with `value`."""
    return _make(np.full(shape, value, dtype), device, requires_grad)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of x's shape, dtype and device."""
    return zeros(x.shape, x.dtype, device=x.device)


def ones_like(x: Tensor) -> Tensor:
    """Ones of x's shape, dtype and device."""
    return ones(x.shape, x.dtype, device=x.device)


def full_like(x: Tensor, value: Any) -> Tensor:
    """`value` in x's shape, dtype and device."""
    return full(x.shape, value, x.dtype, device=x.device)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: Any = None,
    *,
    device: Device | str | None = None,
) -> Tensor:
    """Evenly spaced values in [start, stop): int64 for integers, float32 otherwise."""
    bounds: tuple[Any, Any] = (0, start) if stop is None else (start, stop)
    if dtype is None and not all(isinstance(n, (int, np.integer)) for n in (*bounds, step)):
        dtype = np.float32
    return _make(np.arange(*bounds, step, dtype=dtype), device, False)


def linspace(
    start: float,
    stop: float,
    num: int = 50,
    dtype: Any = np.float32,
    *,
    device: Device | str | None = None,
) -> Tensor:
    """`num` evenly spaced values in [start, stop]."""
    return _make(np.linspace(start, stop, num, dtype=dtype), device, False)


def eye(n: int, dtype: Any = np.float32, *, device: Device | str | None = None) -> Tensor:
    """The (n, n) identity matrix."""
    return _make(np.eye(n, dtype=dtype), device, False)


def from_dlpack(array: Any) -> Tensor:
    """A tensor over the memory of a PyTorch, JAX, CuPy or NumPy array, without a copy.

    On the CPU the memory is shared; a tensor made from read-only memory cannot be written.
    """
    kind, _ = array.__dlpack_device__()
    xp = np if int(kind) == 1 else Device("gpu").xp
    return Tensor(xp.from_dlpack(array))
