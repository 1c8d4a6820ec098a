import numpy as np
import pytest

from tests.minigrad.kernels.twins import check_twins, layouts

NEEDS = (True, False, False)


def _angles(rng, *shape):
    angles = rng.standard_normal(shape)
    return np.cos(angles), np.sin(angles)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("heads", [None, 0, 3, 5])
def test_equals_textbook(heads, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 7, 5, 6)).astype(dtype)
    cos, sin = (a.astype(dtype) for a in _angles(rng, 7, 1, 3))
    check_twins("rotary", (x, cos, sin), rng, needs=NEEDS, heads=heads)


@pytest.mark.parametrize("shape", [(6,), (7, 6), (3, 1, 7, 6), (0, 7, 6)])
def test_any_number_of_axes(shape):
    rng = np.random.default_rng(1)
    cos, sin = _angles(rng, 3)
    check_twins("rotary", (rng.standard_normal(shape), cos, sin), rng, needs=NEEDS)


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1)))))
def test_any_memory_order(layout):
    rng = np.random.default_rng(2)
    x = layouts(rng.standard_normal((3, 7, 5, 4)))[layout]
    cos, sin = (layouts(a)[layout] for a in _angles(rng, 7, 1, 2))
    for heads in (None, 2):
        check_twins("rotary", (x, cos, sin), rng, needs=NEEDS, heads=heads)
