"""Turning what a caller gives (tensors, arrays, numbers) into tensors that fit together."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.tensor import Tensor


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """`value` as a tensor on the device of `like`.

    A Python number takes the dtype of `like` (a float beside an integer tensor becomes float32), so
    that `x * 0.5` keeps x's dtype. Arrays keep their own.
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
        return Tensor(like.device.asarray(np.asarray(value, dtype)))
    return Tensor(value, device=like.device)


def as_pair(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Two operands, at least one of them a tensor or array, as tensors."""
    if isinstance(x, Tensor):
        return x, y if isinstance(y, Tensor) else as_tensor(y, like=x)
    if isinstance(y, Tensor):
        return as_tensor(x, like=y), y
    return as_pair(Tensor(x), y)


def as_float(x: Any) -> Tensor:
    """A float tensor; integers and booleans become float32."""
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else Tensor(x.data.astype(np.float32))
