"""New tensors. The dtype is float32 and the device the CPU unless given.

A shape is a number, a sequence, or, for `zeros` and `ones`, several numbers: `zeros(2, 3)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad import functions
from minigrad.device import Device, namespace_of
from minigrad.dtypes import (
    BOOL,
    DEFAULT_FLOAT,
    DEFAULT_INT,
    SCALARS,
    beside,
    fitting,
    plain_number,
    real_dtype,
)
from minigrad.settings import Setting
from minigrad.state import STATE, setting
from minigrad.tensor import Tensor

__all__ = [
    "arange",
    "asarray",
    "default_device",
    "empty",
    "empty_like",
    "eye",
    "from_dlpack",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "zeros",
    "zeros_like",
]


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
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`data` (an array, numbers, nested lists) as a tensor; an array is not copied.

    A tensor is returned as it is, with its graph, unless another dtype or device or a leaf is asked
    for. `copy=True` always gives new memory.

    Raises:
        ValueError: with `copy=False`, if a copy is needed.
    """
    if isinstance(data, Tensor) and not (requires_grad and not data.requires_grad):
        result = data if device is None else data.to(device)
        result = result if dtype is None else result.astype(dtype, copy=False)
    else:
        result = Tensor(data, dtype, device=device, requires_grad=requires_grad)
    given = data.array if isinstance(data, Tensor) else data
    shared = hasattr(given, "dtype") and hasattr(given, "shape") and _shares(given, result.array)
    if copy is False and not shared:
        raise ValueError(f"asarray: a tensor of {result.dtype} on {result.device} needs a copy")
    if copy and shared:
        if requires_grad:
            return Tensor(result.array.copy(), requires_grad=True)
        return functions.clone(result)
    return result


def _shares(given: Any, array: Any) -> bool:
    return given is array or (
        isinstance(given, np.ndarray) == isinstance(array, np.ndarray)
        and given.size > 0
        and bool(namespace_of(array).may_share_memory(given, array))
    )


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
    """After a shape follows its dtype; after a size follows the next size."""
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
    fill_value: Any,
    dtype: Any = None,
    *,
    device: Device | str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor filled with a value, which may be a tensor: gradients flow to it.

    Without a dtype integers become int64, booleans bool, and all else float32.
    """
    value = fill_value
    if isinstance(value, Tensor):
        if requires_grad and value.requires_grad:
            raise ValueError("full: a leaf cannot be filled from a graph; use value.detach()")
        filled = functions.broadcast_to(functions.astype(value, _float_unless(dtype)), shape)
        filled = filled if device is None else filled.to(device)
        if filled.requires_grad:
            return filled
        return _make(filled.array.copy(), filled.device, requires_grad)
    if isinstance(value, SCALARS):
        value = plain_number(value)
        if dtype is None:
            dtype = beside(BOOL, value)
        value = fitting(value, real_dtype(dtype))
    elif np.asarray(value).dtype.kind not in "fiub":
        raise TypeError(f"full: a tensor holds real numbers or booleans, not {value!r:.60}")
    return _make(np.full(shape, value, _float_unless(dtype)), device, requires_grad)


def empty(
    shape: int | Sequence[int],
    *more: Any,
    dtype: Any = None,
    device: Device | str | None = None,
) -> Tensor:
    """A tensor with arbitrary values; otherwise as `zeros`."""
    sizes, dtype = _sizes_and_dtype("empty", shape, more, dtype)
    return _make(np.empty(sizes, dtype), device, False)


def zeros_like(x: Tensor, *, dtype: Any = None, device: Device | str | None = None) -> Tensor:
    """Zeros of x's shape, and of its dtype and device unless others are given."""
    return zeros(x.shape, **_like(x, dtype, device))


def ones_like(x: Tensor, *, dtype: Any = None, device: Device | str | None = None) -> Tensor:
    """Ones of x's shape, and of its dtype and device unless others are given."""
    return ones(x.shape, **_like(x, dtype, device))


def empty_like(x: Tensor, *, dtype: Any = None, device: Device | str | None = None) -> Tensor:
    """Any values in x's shape, and in its dtype and on its device unless others are given."""
    return empty(x.shape, **_like(x, dtype, device))


def full_like(
    x: Tensor, fill_value: Any, *, dtype: Any = None, device: Device | str | None = None
) -> Tensor:
    """`fill_value` in x's shape, and in its dtype and on its device unless others are given."""
    return full(x.shape, fill_value, **_like(x, dtype, device))


def _like(x: Tensor, dtype: Any, device: Any) -> dict[str, Any]:
    return {
        "dtype": x.dtype if dtype is None else dtype,
        "device": x.device if device is None else device,
    }


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
    endpoint: bool = True,
) -> Tensor:
    """`num` evenly spaced values in [start, stop], or in [start, stop) without the endpoint."""
    start, stop = _number("linspace", start), _number("linspace", stop)
    values = np.linspace(start, stop, num, endpoint, dtype=_float_unless(dtype))
    return _make(values, device, False)


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
        TypeError: the tensor is in a graph, which the new values would not be part of.
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


def from_dlpack(
    array: Any, *, device: Device | str | None = None, copy: bool | None = None
) -> Tensor:
    """A tensor over the memory of a PyTorch, JAX, CuPy or NumPy array.

    On the CPU the memory is shared unless `copy` is True; a tensor made from read-only memory
    cannot be written.

    Raises:
        ValueError: with `copy=False`, if another device is asked for.
    """
    kind, _ = array.__dlpack_device__()
    xp = np if int(kind) == 1 else Device("gpu").xp
    return asarray(Tensor(xp.from_dlpack(array)), device=device, copy=copy)
