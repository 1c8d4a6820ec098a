"""New tensors. The dtype is float32 and the device the CPU unless given.

A shape is a number, a sequence, or, for `zeros` and `ones`, several numbers: `zeros(2, 3)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad import functions
from minigrad.device import Device
from minigrad.dtypes import DEFAULT_FLOAT, DEFAULT_INT, SCALARS, fitting, plain_number, real_dtype
from minigrad.settings import Setting
from minigrad.state import STATE, setting
from minigrad.tensor import Tensor


def default_device(device: Device | str) -> Setting:
    """Context manager and decorator: creation functions without `device` make tensors on this."""
    return setting(device=Device(device))


def _make(array: np.ndarray, device: Device | str | None, requires_grad: bool) -> Tensor:
    target = STATE.device if device is None else device
    tensor = Tensor.wrap(Device(target).asarray(array))
    return Tensor(tensor, requires_grad=True) if requires_grad else tensor


def asarray(
    data: Any,
    dtype: Any = None,
    *,
    device: Device | str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`data` (an array, numbers, nested lists) as a tensor; an array is not copied.

    A tensor is given back as it is, unless its dtype or device is to be another one, or it is to be
    a leaf; its graph is kept.
    """
    if isinstance(data, Tensor) and not (requires_grad and not data.requires_grad):
        moved = data if device is None else data.to(device)
        return moved if dtype is None else moved.astype(dtype)
    return Tensor(data, dtype, device=device, requires_grad=requires_grad)


def zeros(
    shape: int | Sequence[int],
    *more: Any,
    dtype: Any = None,
    device: Device | str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of zeros: `zeros((2, 3))`, `zeros((2, 3), "float64")` or `zeros(2, 3)`."""
    sizes, dtype = _sizes_and_dtype("zeros", shape, more, dtype)
    return _make(np.zeros(sizes, dtype), device, requires_grad)


def ones(
    shape: int | Sequence[int],
    *more: Any,
    dtype: Any = None,
    device: Device | str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of ones: `ones((2, 3))`, `ones((2, 3), "float64")` or `ones(2, 3)`."""
    sizes, dtype = _sizes_and_dtype("ones", shape, more, dtype)
    return _make(np.ones(sizes, dtype), device, requires_grad)


def _sizes_and_dtype(op: str, shape: Any, more: tuple[Any, ...], dtype: Any) -> tuple[Any, Any]:
    """What stands after a shape is its dtype; what stands after a size is the next size."""
    if more and not _is_size(more[-1]):
        if dtype is not None:
            raise TypeError(f"{op}: the dtype is given twice, as {more[-1]!r} and as {dtype!r}")
        *more, dtype = more  # type: ignore[assignment]
    if more and not _is_size(shape):
        raise TypeError(f"{op}: give the shape as one sequence or as numbers, not as both")
    return (shape, *more) if more else shape, _float_unless(dtype)


def _is_size(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, type)  # `int` is a dtype


def _float_unless(dtype: Any) -> Any:
    return DEFAULT_FLOAT if dtype is None else real_dtype(dtype)


def full(
    shape: int | Sequence[int],
    value: Any,
    dtype: Any = None,
    *,
    device: Device | str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor filled with `value`, which may be a tensor: gradients flow to it."""
    if isinstance(value, Tensor):
        if requires_grad and value.requires_grad:
            raise ValueError("full: a leaf cannot be filled from a graph; use value.detach()")
        filled = functions.broadcast_to(functions.astype(value, _float_unless(dtype)), shape)
        filled = filled if device is None else filled.to(device)
        if filled.requires_grad:
            return filled
        return _make(filled.array.copy(), filled.device, requires_grad)
    if isinstance(value, SCALARS):
        value = fitting(plain_number(value), _float_unless(dtype))
    elif np.asarray(value).dtype.kind not in "fiub":
        raise TypeError(f"full: a tensor holds real numbers or booleans, not {value!r:.60}")
    return _make(np.full(shape, value, _float_unless(dtype)), device, requires_grad)


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
    start, stop, step = (_number("arange", value) for value in (start, stop, step))
    bounds: tuple[Any, ...] = (0, start, step) if stop is None else (start, stop, step)
    if dtype is None:
        dtype = DEFAULT_INT if all(_is_integer(n) for n in bounds) else DEFAULT_FLOAT
    return _make(np.arange(*bounds, dtype=real_dtype(dtype)), device, False)


def _is_integer(number: Any) -> bool:
    dtype = getattr(number, "dtype", None)
    return isinstance(number, int) if dtype is None else dtype.kind in "iub"


def linspace(
    start: float,
    stop: float,
    num: int = 50,
    dtype: Any = None,
    *,
    device: Device | str | None = None,
) -> Tensor:
    """`num` evenly spaced values in [start, stop]."""
    start, stop = _number("linspace", start), _number("linspace", stop)
    return _make(np.linspace(start, stop, num, dtype=_float_unless(dtype)), device, False)


def eye(
    n: int,
    m: Any = None,
    dtype: Any = None,
    *,
    k: int = 0,
    device: Device | str | None = None,
) -> Tensor:
    """The (n, m) matrix with ones on diagonal k (0 the main one, 1 above it); m is n unless given.

    `eye(3, "float64")` is understood as well.
    """
    if m is not None and not _is_size(m):
        if dtype is not None:
            raise TypeError(f"eye: the number of columns is {m!r}; give an integer")
        m, dtype = None, m
    return _make(np.eye(n, m, k, dtype=_float_unless(dtype)), device, False)


def _number(name: str, value: Any) -> Any:
    """A number, also out of a tensor.

    Raises:
        TypeError: the tensor is in a graph, to which the new values would not belong.
    """
    if not isinstance(value, Tensor):
        return value
    if value.requires_grad and STATE.grad_enabled:
        raise TypeError(
            f"{name} takes numbers: its values would leave the graph of this tensor silently. "
            "Write start + (stop - start) * minigrad.linspace(0, 1, num); where no gradient is "
            "needed, use .numpy() or .detach()."
        )
    return value.item()


def from_dlpack(array: Any) -> Tensor:
    """A tensor over the memory of a PyTorch, JAX, CuPy or NumPy array, without a copy.

    On the CPU the memory is shared; a tensor made from read-only memory cannot be written.
    """
    kind, _ = array.__dlpack_device__()
    xp = np if int(kind) == 1 else Device("gpu").xp
    return Tensor(xp.from_dlpack(array))
