"""How numbers are stored in weight files, including small floats that NumPy does not have.

bfloat16 is the upper half of a float32. The 8-bit floats are those of Micikevicius et al., "FP8
formats for deep learning" (2022), and the variants with a single NaN and no negative zero (`fnuz`)
of Noune et al., "8-bit numerical formats for deep neural networks" (2022). All of them fit in
float32 exactly.
"""

from functools import cache
from typing import Literal

import numpy as np

# dtype names are NumPy's and PyTorch's. The code is that of the array as it lies in the file;
# `bool` is read as bytes, because a byte that is neither 0 nor 1 is not a valid NumPy bool.
_STORED_AS = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "float8_e4m3fn": "u1",
    "float8_e4m3fnuz": "u1",
    "float8_e5m2": "u1",
    "float8_e5m2fnuz": "u1",
    "complex128": "c16",
    "complex64": "c8",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "u1",
}
DTYPE_NAMES = frozenset(_STORED_AS)

# name -> (bits of the mantissa, bias of the exponent)
_FLOAT8 = {
    "float8_e4m3fn": (3, 7),
    "float8_e4m3fnuz": (3, 8),
    "float8_e5m2": (2, 15),
    "float8_e5m2fnuz": (2, 16),
}


def stored_itemsize(name: str) -> int:
    """Bytes that one element of dtype `name` takes in a file."""
    return np.dtype(_STORED_AS[name]).itemsize


def loaded_itemsize(name: str) -> int:
    """Bytes that one element of dtype `name` takes as `decode` returns it."""
    return 4 if name == "bfloat16" or name in _FLOAT8 else stored_itemsize(name)


def decode(raw: np.ndarray, name: str, byteorder: Literal["little", "big"]) -> np.ndarray:
    """Bytes of a file as a flat array in the machine's byte order.

    Args:
        raw: (number of bytes,) uint8. It is not copied if its bytes can be used as they are.
        name: one of `DTYPE_NAMES`. bfloat16 and the 8-bit floats are widened to float32, exactly.
        byteorder: that of the file.
    """
    stored = raw.view(np.dtype(_STORED_AS[name]).newbyteorder(byteorder))
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if name == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if name in _FLOAT8:
        return _float8_values(name)[stored]
    return stored != 0 if name == "bool" else stored


@cache
def _float8_values(name: str) -> np.ndarray:
    """(256,) float32: the value of each byte read as an 8-bit float."""
    mantissa_bits, bias = _FLOAT8[name]
    byte = np.arange(256)
    exponent = (byte & 0x7F) >> mantissa_bits
    mantissa = byte & ((1 << mantissa_bits) - 1)
    leading_one = np.where(exponent > 0, 1 << mantissa_bits, 0)  # subnormals have none
    magnitude = np.ldexp(leading_one + mantissa, np.maximum(exponent, 1) - bias - mantissa_bits)
    values = np.where(byte & 0x80, -magnitude, magnitude).astype(np.float32)
    if name == "float8_e4m3fn":
        values[[0x7F, 0xFF]] = np.nan
    elif name == "float8_e5m2":
        values[[0x7C, 0xFC]] = np.inf, -np.inf
        values[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    else:
        values[0x80] = np.nan
    return values


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits (uint16) of the nearest bfloat16 of each float, ties to even; NaN stays NaN.

    float64 is rounded once, not first to float32 and then again: a value that float32 cannot hold
    is cut off to float32 with its last bit set ("round to odd"), which keeps on which side of a tie
    it is.
    """
    flat = values.reshape(-1)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        single = flat.astype(np.float32)
    bits = single.view(np.uint32).copy()
    if flat.dtype.itemsize > 4:
        inexact = (single != flat) & ~np.isnan(flat)
        bits[np.abs(single) > np.abs(flat)] -= 1
        bits[inexact] |= 1
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Rounding could carry a NaN over to infinity; keep its upper half and make it quiet instead.
    rounded = np.where(np.isnan(single), (bits >> 16) | 0x40, rounded)
    return rounded.astype(np.uint16).reshape(values.shape)
