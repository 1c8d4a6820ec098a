"""Compares floats that NumPy does not have with their definition and with PyTorch."""

import numpy as np
import pytest

from minigrad.storage.stored_dtypes import (
    DTYPE_NAMES,
    decode,
    loaded_itemsize,
    round_to_bfloat16,
    stored_itemsize,
)

FLOAT8 = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]


def widen(bits):
    return decode(np.asarray(bits, np.uint16).view(np.uint8), "bfloat16", "little")


@pytest.mark.parametrize("name", sorted(DTYPE_NAMES))
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_byte_order_and_sizes(name, byteorder):
    raw = np.arange(1, 33, dtype=np.uint8)
    swapped = raw.reshape(-1, stored_itemsize(name))
    if name.startswith("complex"):
        swapped = raw.reshape(-1, stored_itemsize(name) // 2)
    other = {"little": "big", "big": "little"}[byteorder]
    values = decode(raw, name, byteorder)
    np.testing.assert_array_equal(
        values, decode(np.ascontiguousarray(swapped[:, ::-1]).reshape(-1), name, other)
    )
    assert values.dtype.isnative
    assert values.dtype.itemsize == loaded_itemsize(name)
    assert values.size == 32 // stored_itemsize(name)


def test_bool_bytes_become_valid_bools():
    values = decode(np.array([0, 1, 2, 255], np.uint8), "bool", "little")
    assert values.dtype == bool
    np.testing.assert_array_equal(values.view(np.uint8), [0, 1, 1, 1])


def test_bfloat16_survives_the_round_trip_whatever_its_bits():
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = widen(bits)
    kept = round_to_bfloat16(values)
    signalling = np.isnan(values) & ((bits & 0x40) == 0)
    np.testing.assert_array_equal(kept[~signalling], bits[~signalling])
    assert np.isnan(widen(kept[signalling])).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bfloat16_is_the_nearest_and_ties_go_to_even(dtype):
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(5000) * 10.0 ** rng.integers(-4, 4, 5000)).astype(dtype)
    values = np.concatenate([values, -values, np.array([0.0, -0.0, 1.0], dtype)])
    rounded = widen(round_to_bfloat16(values)).astype(np.float64)
    below = widen(round_to_bfloat16(values) - np.uint16(1)).astype(np.float64)
    above = widen(round_to_bfloat16(values) + np.uint16(1)).astype(np.float64)
    error = np.abs(rounded - values)
    nonzero = values != 0
    assert (error[nonzero] <= np.abs(below - values)[nonzero]).all()
    assert (error[nonzero] <= np.abs(above - values)[nonzero]).all()
    np.testing.assert_array_equal(np.signbit(rounded), np.signbit(values))
    halfway = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8])
    np.testing.assert_array_equal(
        widen(round_to_bfloat16(halfway)), np.float32([1, 1 + 2**-6, -1 - 0.0])
    )


def test_bfloat16_rounds_float64_once():
    just_above_the_tie = np.array([1 + 2**-8 + 2**-40, -(1 + 2**-8 + 2**-40)])
    just_below_the_tie = np.array([1 + 3 * 2**-8 - 2**-40])
    assert (widen(round_to_bfloat16(just_above_the_tie)) == [1 + 2**-7, -1 - 2**-7]).all()
    assert widen(round_to_bfloat16(just_below_the_tie)) == 1 + 2**-7


def test_bfloat16_at_the_edges():
    values = np.array([np.inf, -np.inf, 3.4e38, 1e300, -1e300, 1e-300, 3.3895e38])
    np.testing.assert_array_equal(
        widen(round_to_bfloat16(values)),
        np.float32([np.inf, -np.inf, np.inf, np.inf, -np.inf, 0, 255 * 2.0**120]),
    )
    all_nan = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001], np.uint32)
    for nan in all_nan:  # without axes too, for which NumPy would warn of an overflow
        assert np.isnan(widen(round_to_bfloat16(nan.reshape(()).view(np.float32)).reshape(1)))


def test_bfloat16_keeps_shapes_and_takes_any_strides():
    values = np.arange(24.0).reshape(2, 3, 4).T
    bits = round_to_bfloat16(values)
    np.testing.assert_array_equal(widen(bits.reshape(-1)).reshape(bits.shape), values)
    assert round_to_bfloat16(np.zeros((0, 3))).shape == (0, 3)


def test_bfloat16_equals_torch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    bits = np.random.default_rng(1).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    values = bits.view(np.float32)
    theirs = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy()
    ours, theirs = round_to_bfloat16(values), theirs.view(np.uint16)
    finite = ~np.isnan(values)
    np.testing.assert_array_equal(ours[finite], theirs[finite])
    assert np.isnan(widen(ours[~finite])).all()


@pytest.mark.parametrize("name", FLOAT8)
def test_float8_equals_torch(name):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    every_byte = np.arange(256, dtype=np.uint8)
    theirs = torch.from_numpy(every_byte).view(getattr(torch, name)).to(torch.float32).numpy()
    ours = decode(every_byte, name, "little")
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(
        np.signbit(ours)[~np.isnan(ours)], np.signbit(theirs)[~np.isnan(ours)]
    )


def test_float8_known_values():
    largest = {0x7E: 448.0, 0x01: 2.0**-9, 0x38: 1.0, 0xB8: -1.0}
    values = decode(np.array(list(largest), np.uint8), "float8_e4m3fn", "little")
    np.testing.assert_array_equal(values, list(largest.values()))
