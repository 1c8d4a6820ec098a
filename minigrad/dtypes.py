"""Which dtype a result has: the one rule of promotion.

| operands                                  | result                                             |
|-------------------------------------------|----------------------------------------------------|
| floats                                    | the widest of them                                 |
| floats beside integers or booleans        | the widest of the *floats*                         |
| integers and booleans                     | NumPy's: the smallest integer that holds all       |
| uint64 beside a signed integer            | an error, for there is no such integer             |
| a scalar beside a float tensor            | the tensor's dtype                                 |
| a float scalar beside integers            | float32                                            |
| an int scalar beside integers             | the tensor's dtype; an error if it does not fit    |
| an int scalar beside booleans             | int64                                              |
| scalars alone                             | float32, int64 or bool                             |
| integers where a function needs floats    | float32 (`exp`, `mean`, `/`, ...)                  |

A scalar is a Python number or a NumPy scalar (`np.float64(2)`, as `array.sum()` gives). Its dtype
does not matter, only its value. The dtype of an array or a tensor matters, even without axes. So
nothing becomes float64 unless an array or tensor of float64 takes part. Comparisons compare exactly
and give booleans. A gradient has the dtype of its tensor.

Low precision is for storing, not for computing. If an op's inputs are float16, it computes
everything in float32 and rounds its result to float16 once; so does its backward. Otherwise e¹² and
300² would be infinite and 1/70,000,000 would be 0. Optimizers hold their state of float16
parameters in float32. bfloat16 exists in files only, and is widened to float32 when it is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DEFAULT_FLOAT = np.dtype(np.float32)
DEFAULT_INT = np.dtype(np.int64)
BOOL = np.dtype(np.bool)
LOW = "e"  # the letter of float16, in any order of bytes
SCALARS = (bool, int, float, np.generic)


def plain_number(scalar: Any) -> Any:
    """A Python or NumPy scalar as a Python number.

    Raises:
        TypeError: it is no real number (a complex, a string, a date).
    """
    if isinstance(scalar, np.generic):
        if scalar.dtype.kind not in "fiub":
            raise TypeError(f"a tensor holds real numbers or booleans, not {scalar.dtype}")
        return float(scalar) if scalar.dtype.kind == "f" else scalar.item()
    return scalar


def real_dtype(dtype: Any) -> np.dtype:
    """A dtype that tensors can have, from its name or type (`"float64"`, `np.int32`, `float`).

    Raises:
        TypeError: it is another one (complex numbers, strings, objects), or None, which NumPy takes
            for float64.
    """
    if dtype is None:
        raise TypeError('None is no dtype: give one, such as "float32"')
    found = np.dtype(dtype)
    if found.kind not in "fiub":
        raise TypeError(f"a tensor holds real numbers or booleans, not {found}")
    return found


def beside(dtype: np.dtype, number: Any) -> np.dtype:
    """The dtype of an array's result with a Python number."""
    if dtype.kind == "f":
        return dtype
    if isinstance(number, float):
        return DEFAULT_FLOAT
    return DEFAULT_INT if dtype.kind == "b" and not isinstance(number, bool) else dtype


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """What numbers of this dtype are computed in: float32 for float16, otherwise `dtype`."""
    return DEFAULT_FLOAT if dtype.char == LOW else dtype


def widened(array: Any) -> Any:
    """An array or a tensor of float16 as float32; others, and None, as they are."""
    if array is None or array.dtype.char != LOW:
        return array
    return array.astype(DEFAULT_FLOAT)


def promote(*dtypes: np.dtype) -> np.dtype:
    """The dtype of the result of arrays of these dtypes.

    Raises:
        TypeError: uint64 beside a signed integer, which NumPy would make float64.
    """
    floats = [dtype for dtype in dtypes if dtype.kind == "f"]
    result = np.result_type(*(floats or dtypes))
    if not floats and result.kind not in "iub":
        names = " and ".join(dict.fromkeys(str(dtype) for dtype in dtypes))
        raise TypeError(
            f"no integer dtype holds {names}: convert one of them with .astype('int64')"
        )
    return result


def fitting(number: Any, dtype: np.dtype) -> Any:
    """A Python number, for an array of `dtype`.

    Raises:
        OverflowError: `dtype` is an integer type, and the number does not fit.
    """
    if dtype.kind in "iu" and not isinstance(number, bool):
        limits = np.iinfo(dtype)
        if not limits.min <= number <= limits.max:
            raise OverflowError(
                f"{number} is not between {limits.min} and {limits.max}, the limits of {dtype}: "
                "convert the tensor first, for example with .astype('int64')"
            )
    return number


__all__ = ["widened"]
