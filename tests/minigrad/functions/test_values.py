"""Compares every public function with NumPy: values, dtypes, layouts, and which have a gradient."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from minigrad.dtypes import promote
from tests.minigrad.functions.table import CALLS, Call

DTYPES = {
    "b": ["bool"],
    "i": ["int32", "int64", "int8"],
    "u": ["uint8"],
    "f": ["float32", "float64"],
}
LAYOUTS = {
    "C": lambda a: a,
    "F": lambda a: np.array(a, order="F"),
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "backwards": lambda a: a[::-1].copy()[::-1] if a.ndim else a,
}
IDS = [f"{i}-{call.name}" for i, call in enumerate(CALLS)]


def operands(call: Call, dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    low, high = call.limits
    found = []
    for shape in call.shapes:
        if dtype == "bool":
            found.append(rng.random(shape) < 0.5)
        elif np.dtype(dtype).kind in "iu":
            low = max(low, 0) if np.dtype(dtype).kind == "u" else low
            found.append(rng.integers(int(low), int(high) + 1, shape).astype(dtype))
        else:
            found.append(np.asarray(rng.uniform(low, high, shape)).astype(dtype))
    return found


def parts(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def ours_of(call: Call, arrays: list[np.ndarray]) -> list[Any]:
    return parts(call.function(mg, *[Tensor(a) for a in arrays]))


def numpys_of(call: Call, arrays: list[np.ndarray]) -> list[Any]:
    return parts(call.numpys(np, *arrays))


@pytest.mark.parametrize("call", CALLS, ids=IDS)
def test_values_and_dtypes_are_numpys(call: Call) -> None:
    for dtype in (d for kind in call.kinds for d in DTYPES[kind]):
        arrays = operands(call, dtype)
        if call.floats and dtype in ("bool", "int8", "uint8", "int32", "int64"):
            theirs = numpys_of(call, [a.astype(np.float32) for a in arrays])
        else:
            theirs = numpys_of(call, arrays)
        ours = ours_of(call, arrays)
        assert len(ours) == len(theirs)
        for got, want in zip(ours, theirs, strict=True):
            want = np.asarray(want)
            assert isinstance(got, Tensor) and got.shape == want.shape, dtype
            assert got.dtype == want.dtype, dtype
            tolerance = 40 * np.finfo(want.dtype).eps if want.dtype.kind == "f" else 0
            np.testing.assert_allclose(got.numpy(), want, tolerance, tolerance)


MIXED = [("float32", "float64"), ("int8", "int32"), ("uint8", "int16"), ("int64", "float32")]
TWO = [pytest.param(c, id=f"{i}-{c.name}") for i, c in enumerate(CALLS) if len(c.shapes) > 1]


@pytest.mark.parametrize("call", TWO)
def test_operands_of_two_dtypes_meet_in_one(call: Call) -> None:
    """The result is the same as if the operands were converted first."""
    for left, right in (*MIXED, *((b, a) for a, b in MIXED)):
        kinds = {np.dtype(left).kind, np.dtype(right).kind}
        if not kinds <= set(call.kinds) or call.name in ("nextafter", "where"):
            continue
        arrays = [operands(call, left)[0], *operands(call, right)[1:]]
        meeting = promote(np.dtype(left), np.dtype(right))
        both = ours_of(call, [a.astype(meeting) for a in arrays])
        for got, want in zip(ours_of(call, arrays), both, strict=True):
            if call.name not in ("meshgrid", "broadcast_arrays"):
                assert got.dtype == want.dtype, (left, right)
            tolerance = 1e-6 if want.dtype.kind == "f" else 0
            np.testing.assert_allclose(got.numpy(), want.numpy(), tolerance, tolerance)


@pytest.mark.parametrize("call", CALLS, ids=IDS)
def test_the_layout_of_memory_changes_nothing(call: Call) -> None:
    dtype = "float64" if "f" in call.kinds else "int64"
    arrays = operands(call, dtype)
    plain = ours_of(call, arrays)
    copies = [a.copy() for a in arrays]
    for layout in LAYOUTS.values():
        other = ours_of(call, [layout(a) for a in arrays])
        for got, want in zip(other, plain, strict=True):
            np.testing.assert_allclose(got.numpy(), want.numpy(), 1e-14, 1e-14)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy, "an operand was written to")


@pytest.mark.parametrize("call", [c for c in CALLS if "f" in c.kinds], ids=lambda c: c.name)
def test_float16_is_computed_in_float32(call: Call) -> None:
    """The result is the one in float64 for the same numbers, rounded about once."""
    arrays = [a.astype(np.float16) for a in operands(call, "float64")]
    if call.name in ("nextafter", "argsort", "topk", "searchsorted", "finfo"):
        return  # the result depends on the dtype, or on ties that rounding makes
    ours = ours_of(call, arrays)
    wide = ours_of(call, [a.astype(np.float64) for a in arrays])
    for got, want in zip(ours, wide, strict=True):
        if want.dtype.kind != "f" or call.name in ("astype",) or got.dtype == np.float64:
            continue
        assert got.dtype == np.float16
        scale = max(1.0, float(np.abs(want.numpy()).max(initial=0)))
        np.testing.assert_allclose(got.numpy(), want.numpy(), 0, 4e-3 * scale)
