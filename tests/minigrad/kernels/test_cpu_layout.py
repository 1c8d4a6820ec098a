"""Feature-major memory: rows are contiguous, and strides are not near a power of two."""

import numpy as np
import pytest

from minigrad.kernels.cpu import KERNELS
from minigrad.kernels.cpu.layout import CROWDED, as_feature_major, as_logical, as_rows, empty_rows
from minigrad.ops import TEXTBOOK
from tests.minigrad.kernels.twins import check_twins, layouts

DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positions", [0, 1, 127, 255, 256, 384, 512, 2032, 2048, 4096])
def test_no_two_rows_lie_a_multiple_of_a_large_power_of_two_apart(positions, dtype):
    rows = empty_rows((3, 2), positions, dtype)
    assert (rows.shape, rows.dtype) == ((3, 2, positions), dtype)
    assert rows.strides[-1] == dtype.itemsize
    if positions:
        assert rows.strides[-2] % CROWDED != 0
    assert rows.strides[-2] <= positions * dtype.itemsize + 16 * dtype.itemsize


@pytest.mark.parametrize("positions", [(2, 3), (4, 64), (256,)])
def test_feature_major_arrays_are_not_copied(positions):
    rows = empty_rows((5,), int(np.prod(positions)), np.dtype(np.float32))
    x = as_logical(rows, positions)
    assert x.shape == (*positions, 5)
    for view in (as_rows(x), as_feature_major(x)):
        assert view.shape == rows.shape
        assert view.strides == rows.strides
        assert np.shares_memory(view, rows)


def test_other_arrays_become_feature_major(rng):
    array = rng.standard_normal((2, 3, 4))
    for name, x in layouts(array).items():
        rows = as_feature_major(x)
        np.testing.assert_array_equal(rows, array.reshape(6, 4).T, err_msg=name)
        assert rows.strides[1] == rows.itemsize, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "time"), [(2, 128), (1, 256), (4, 64)])
def test_kernels_agree_with_their_twins_where_rows_have_gaps(batch, time, dtype, rng):
    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x, weight, bias, scale = draw(batch, time, 6), draw(8, 6), draw(8), draw(6)
    y, _ = KERNELS[TEXTBOOK["linear"]].forward(x, weight, bias)
    assert y.base is not None
    assert abs(y.strides[-1]) > batch * time * dtype.itemsize, "there is no gap"
    check_twins("linear", (x, weight, bias), rng, activation="relu")
    check_twins("layer_norm", (x, scale, draw(6)), rng, eps=1e-5)
    check_twins("add_layer_norm", (x, draw(batch, time, 6), scale, None), rng, eps=1e-5)
    check_twins("multi_head_attention", (x,), rng, num_heads=2, causal=True)
    # The same kernels one after the other, each on the other's output.
    hidden, _ = KERNELS[TEXTBOOK["linear"]].forward(x, weight, bias)
    check_twins("linear", (hidden, draw(6, 8), None), rng)
    check_twins("add_layer_norm", (hidden, hidden, draw(8), None), rng, eps=1e-5)


def test_dtypes_are_promoted(rng):
    x, weight = rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal((5, 4))
    assert KERNELS[TEXTBOOK["linear"]].forward(x, weight, None)[0].dtype == np.float64
    y, _ = KERNELS[TEXTBOOK["add_layer_norm"]].forward(
        x, x.astype(np.float64), None, None, eps=1e-5
    )
    assert y.dtype == np.float64
