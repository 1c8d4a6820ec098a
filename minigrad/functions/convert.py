"""Turning what a caller gives (tensors, arrays, numbers) into tensors that fit together."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.tensor import Tensor


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """`value` as a tensor on the device of `like`.

    A Python number takes the dtype of `like` (float32 for a float beside integers), so that
    `x * 0.5` keeps x's dtype. Arrays keep their own.
    """
    if isinstance(value, Tensor):
        return value
    if like is None:
        return Tensor(value)
    if isinstance(value, (bool, int, float)):
        dtype: Any = like.dtype
        if dtype.kind != "f" and isinstance(value, float):
            dtype = np.float32
        elif dtype.kind == "b" and not isinstance(value, bool):
            dtype = np.int64
        return Tensor(like.device.number(value, dtype))
    return Tensor(value, device=like.device)


def as_pair(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Two operands as tensors. Integers beside a Python float become float32."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x, y
    if isinstance(y, (bool, int, float)):
        x = as_float(x) if isinstance(y, float) else as_tensor(x)
        return x, as_tensor(y, like=x)
    if isinstance(x, (bool, int, float)):
        y = as_float(y) if isinstance(x, float) else as_tensor(y)
        return as_tensor(x, like=y), y
    if isinstance(x, Tensor):
        return x, as_tensor(y, like=x)
    return as_tensor(x, like=y if isinstance(y, Tensor) else None), as_tensor(y)


def as_float(x: Any) -> Tensor:
    """A float tensor; integers and booleans become float32."""
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else Tensor(x.data.astype(np.float32))
