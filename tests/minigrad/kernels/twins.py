"""Compares a kernel with its page."""

import numpy as np

from minigrad.kernels.cpu import KERNELS
from minigrad.ops import TEXTBOOK

# A kernel sums in another order than the textbook. The differences are a few roundings of the
# largest term of a sum: some tens of eps, relative to the largest element of the result.
TOLERANCE = {np.dtype(np.float32): 5e-6, np.dtype(np.float64): 1e-14}


def assert_close(got, wanted, what, terms=1e-3, condition=1.0):
    """Shapes and dtypes are equal, and values up to rounding, relative to the largest of `wanted`.

    Args:
        terms: the size of the terms of a sum, if they cancel so that the result is smaller.
        condition: the factor by which the maths itself enlarges rounding errors.
    """
    assert got.shape == wanted.shape, what
    assert got.dtype == wanted.dtype, what
    error = np.abs(got - wanted).max(initial=0) / np.abs(wanted).max(initial=terms)
    assert error <= TOLERANCE[wanted.dtype] * condition, f"{what}: relative error {error:.1e}"


def check_twins(name, arrays, rng, needs=None, terms=1e-3, condition=1.0, **statics):
    """Forward and backward of the kernel `name` equal the textbook's, and change none of `arrays`.

    The upstream gradient is random, once C-contiguous and once in the memory order of the output.
    `terms` and `condition`: see `assert_close`.
    """
    kernel, textbook = KERNELS[TEXTBOOK[name]], TEXTBOOK[name]
    needs = needs or tuple(a is not None and a.dtype.kind == "f" for a in arrays)
    before = [None if a is None else a.copy() for a in arrays]

    y, saved = kernel.forward(*arrays, **statics)
    wanted_y, wanted_saved = textbook.forward(np, *arrays, **statics)
    y, wanted_y = np.asarray(y), np.asarray(wanted_y)
    assert_close(y, wanted_y, f"{name} forward", terms, condition)
    y_before = y.copy()
    if hasattr(kernel, "infer"):
        np.testing.assert_array_equal(kernel.infer(*arrays, **statics), y)

    dy = rng.standard_normal(y.shape).astype(y.dtype)
    like_y = np.empty_like(y)  # keeps the order of memory
    like_y[...] = dy
    dy_before = dy.copy()
    wanted = textbook.backward(np, dy, wanted_saved, needs, **statics)
    for upstream in (dy, like_y):
        gradients = kernel.backward(upstream, saved, needs, **statics)
        assert len(gradients) == len(arrays)
        for i, (got, want) in enumerate(zip(gradients, wanted, strict=True)):
            if needs[i]:
                assert_close(got, want, f"{name} gradient {i}", terms, condition)
        if hasattr(kernel, "backward_into"):
            _check_places(kernel, upstream, saved, needs, arrays, gradients, statics)
        np.testing.assert_array_equal(upstream, dy_before)
    for array, old in zip(arrays, before, strict=True):
        if array is not None:
            np.testing.assert_array_equal(array, old)
    np.testing.assert_array_equal(y, y_before)


def _check_places(kernel, dy, saved, needs, arrays, wanted, statics):
    """`backward_into` gives the same bits as `backward`, in places that held garbage, or without.

    The places of inputs that need no gradient stay as they are.
    """
    for offered in (True, False):
        places = tuple(
            np.full(a.shape, np.nan, a.dtype) if offered and n else None
            for a, n in zip(arrays, needs, strict=True)
        )
        gradients = kernel.backward_into(dy, saved, needs, places, **statics)
        for place, got, want, needed in zip(places, gradients, wanted, needs, strict=True):
            if needed:
                np.testing.assert_array_equal(got, want)
                assert got is place or place is None or np.isnan(place).all()


def layouts(array):
    """The same values in several orders of memory."""
    padded = np.zeros([2 * n for n in array.shape], array.dtype)
    strided = padded[tuple(slice(None, None, 2) for _ in array.shape)]
    strided[...] = array
    order = (array.ndim - 1, *range(array.ndim - 1))
    feature_major = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    channels = np.moveaxis(array, -1, 0)
    gapped = np.zeros((len(channels), channels[0].size + 3), array.dtype)[:, :-3]
    gapped = np.moveaxis(gapped.reshape(channels.shape), 0, -1)  # as the kernels leave gaps
    gapped[...] = array
    return {
        "contiguous": np.ascontiguousarray(array),
        "feature-major": feature_major,
        "feature-major with gaps": gapped,
        "fortran": np.asfortranarray(array),
        "strided": strided,
        "reversed": np.ascontiguousarray(array[..., ::-1])[..., ::-1],
    }
