"""The dtypes and the numbers of the Array API standard, under its names.

A tensor's `dtype` is NumPy's, so the dtypes here are NumPy's as well. There are no complex ones.
"""

from __future__ import annotations

import math

import numpy as np

bool = np.dtype(np.bool)
int8, int16, int32, int64 = (np.dtype(f"int{bits}") for bits in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64))
float16, float32, float64 = (np.dtype(f"float{bits}") for bits in (16, 32, 64))

e, pi, inf, nan = math.e, math.pi, math.inf, math.nan
newaxis = None

__array_api_version__ = "2024.12"  # of the standard whose names and behaviours minigrad has

__all__ = [
    "__array_api_version__",
    "bool",
    "e",
    "float16",
    "float32",
    "float64",
    "inf",
    "int8",
    "int16",
    "int32",
    "int64",
    "nan",
    "newaxis",
    "pi",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]
