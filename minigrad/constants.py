"""The dtypes and the numbers of the Array API standard, under its names.

A tensor's `dtype` is NumPy's, so the dtypes here are NumPy's as well. There are no complex ones.
"""

from __future__ import annotations

import math

import numpy as np

bool: np.dtype[np.bool] = np.dtype(np.bool)
int8: np.dtype[np.int8] = np.dtype(np.int8)
int16: np.dtype[np.int16] = np.dtype(np.int16)
int32: np.dtype[np.int32] = np.dtype(np.int32)
int64: np.dtype[np.int64] = np.dtype(np.int64)
uint8: np.dtype[np.uint8] = np.dtype(np.uint8)
uint16: np.dtype[np.uint16] = np.dtype(np.uint16)
uint32: np.dtype[np.uint32] = np.dtype(np.uint32)
uint64: np.dtype[np.uint64] = np.dtype(np.uint64)
float16: np.dtype[np.float16] = np.dtype(np.float16)
float32: np.dtype[np.float32] = np.dtype(np.float32)
float64: np.dtype[np.float64] = np.dtype(np.float64)

e: float = math.e
pi: float = math.pi
inf: float = math.inf
nan: float = math.nan
newaxis: None = None

__array_api_version__: str = "2024.12"  # of the standard whose names and behaviours minigrad has

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
