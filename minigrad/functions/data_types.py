"""Functions about dtypes, and the Array API standard's information about a library."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minigrad import constants
from minigrad.device import CPU, Device, gpu_available
from minigrad.dtypes import (
    BOOL,
    DEFAULT_FLOAT,
    DEFAULT_INT,
    LOW,
    SCALARS,
    beside,
    plain_number,
    promote,
    real_dtype,
)
from minigrad.state import STATE
from minigrad.tensor import Tensor

__all__ = ["can_cast", "finfo", "iinfo", "isdtype", "result_type"]

DTYPES: dict[str, np.dtype] = {  # float16 is not the standard's
    name: dtype
    for name, dtype in vars(constants).items()
    if isinstance(dtype, np.dtype) and dtype.char != LOW
}
KINDS = {
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "f",
    "complex floating": "c",
    "numeric": "iufc",
}


class FloatInfo(NamedTuple):
    """The limits of a dtype of floats, as Python numbers."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: np.dtype


class IntegerInfo(NamedTuple):
    """The limits of a dtype of integers."""

    bits: int
    max: int
    min: int
    dtype: np.dtype


def finfo(type: Any) -> FloatInfo:
    """The limits of a dtype of floats, or of a tensor's dtype.

    Raises:
        TypeError: it is no dtype of floats.
    """
    dtype = _dtype(type)
    if dtype.kind != "f":
        raise TypeError(f"finfo is for dtypes of floats, not {dtype}; use iinfo for integers")
    limits = np.finfo(dtype)
    return FloatInfo(
        bits=int(limits.bits),
        eps=float(limits.eps),
        max=float(limits.max),
        min=float(limits.min),
        smallest_normal=float(limits.smallest_normal),
        dtype=dtype,
    )


def iinfo(type: Any) -> IntegerInfo:
    """The limits of a dtype of integers, or of a tensor's dtype.

    Raises:
        TypeError: it is no dtype of integers.
    """
    dtype = _dtype(type)
    if dtype.kind not in "iu":
        raise TypeError(f"iinfo is for dtypes of integers, not {dtype}; use finfo for floats")
    limits = np.iinfo(dtype)
    return IntegerInfo(limits.bits, int(limits.max), int(limits.min), dtype)


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind: another dtype, "integral", "real floating", ..., or a tuple.

    Raises:
        ValueError: there is no kind of that name.
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, one) for one in kind)
    if isinstance(kind, str):
        if kind not in KINDS:
            raise ValueError(f"isdtype: {kind!r} is no kind of dtypes; there are {list(KINDS)}")
        return np.dtype(dtype).kind in KINDS[kind]
    return np.dtype(dtype) == np.dtype(kind)


def can_cast(from_: Any, to: Any) -> bool:
    """Whether every number of a dtype (or of a tensor's) is one of `to` as well."""
    return np.can_cast(_dtype(from_), real_dtype(to))


def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """The dtype of a result of these tensors, dtypes and numbers (see `minigrad.dtypes`).

    Raises:
        TypeError: there is no such dtype (uint64 beside a signed integer), or nothing is given.
    """
    if not arrays_and_dtypes:
        raise TypeError("result_type needs at least one tensor, dtype or number")
    numbers = [plain_number(x) for x in arrays_and_dtypes if isinstance(x, SCALARS)]
    dtypes = [_dtype(x) for x in arrays_and_dtypes if not isinstance(x, SCALARS)]
    if not dtypes:
        dtypes = [BOOL]
        numbers = numbers or [False]
    result = promote(*dtypes)
    for number in numbers:
        result = beside(result, number)
    return result


def _dtype(value: Any) -> np.dtype:
    return value.dtype if isinstance(value, (Tensor, np.ndarray)) else real_dtype(value)


class Info:
    """The result of `minigrad.__array_namespace_info__()`."""

    def capabilities(self) -> dict[str, Any]:
        """What indexing can do, and how many axes a tensor may have."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Device:
        """Where new tensors are made."""
        return STATE.device

    def devices(self) -> list[Device]:
        """All that are there."""
        if not gpu_available():
            return [CPU]
        count = Device("gpu").xp.cuda.runtime.getDeviceCount()
        return [CPU, *(Device("gpu", index) for index in range(count))]

    def default_dtypes(self, *, device: Any = None) -> dict[str, np.dtype]:
        """The dtypes of new tensors: the same on all devices."""
        return {
            "real floating": DEFAULT_FLOAT,
            "integral": DEFAULT_INT,
            "indexing": DEFAULT_INT,
        }

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, np.dtype]:
        """The standard's dtypes that tensors can have, those of a kind if one is given."""
        return {
            name: dtype for name, dtype in DTYPES.items() if kind is None or isdtype(dtype, kind)
        }


def __array_namespace_info__() -> Info:
    """What the Array API standard asks of a library about itself."""
    return Info()
