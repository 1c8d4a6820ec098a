import itertools

import numpy as np
import pytest

from minigrad.kernels.cpu import layer_norm
from tests.minigrad.kernels.twins import check_twins, layouts

EPS = 1e-5
SHAPES = [(2, 127, 16), (3, 1, 5), (4, 7), (6,), (2, 3, 4, 5), (1, 128, 64)]


def _inputs(rng, shape, dtype):
    x, residual = (rng.standard_normal(shape).astype(dtype) * 2 + 1 for _ in range(2))
    weight, bias = (rng.standard_normal(shape[-1]).astype(dtype) for _ in range(2))
    return x, residual, weight, bias


@pytest.mark.parametrize("affine", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_textbook(shape, dtype, affine):
    rng = np.random.default_rng(0)
    x, residual, weight, bias = _inputs(rng, shape, dtype)
    weight, bias = (a if given else None for a, given in zip((weight, bias), affine, strict=True))
    check_twins("layer_norm", (x, weight, bias), rng, eps=EPS)
    check_twins("add_layer_norm", (x, residual, weight, bias), rng, eps=EPS)
    check_twins("rms_norm", (x, weight), rng, eps=EPS)


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1)))))
def test_any_memory_order(layout):
    rng = np.random.default_rng(1)
    x, residual, weight, bias = _inputs(rng, (3, 5, 6), np.float64)
    check_twins("layer_norm", (layouts(x)[layout], weight, bias), rng, eps=EPS)
    check_twins("rms_norm", (layouts(x)[layout], weight), rng, eps=EPS)
    for x_order, residual_order in ((x, layouts(residual)[layout]), (layouts(x)[layout], residual)):
        check_twins("add_layer_norm", (x_order, residual_order, weight, bias), rng, eps=EPS)


@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3)))
def test_only_what_is_needed(needs):
    rng = np.random.default_rng(2)
    x, _, weight, bias = _inputs(rng, (2, 3, 4), np.float64)
    check_twins("layer_norm", (x, weight, bias), rng, needs=needs, eps=EPS)
    y, saved = layer_norm.forward(x, weight, bias, eps=EPS)
    gradients = layer_norm.backward(y, saved, needs, eps=EPS)
    assert tuple(g is not None for g in gradients) == needs
    check_twins("rms_norm", (x, weight), rng, needs=needs[:2], eps=EPS)
    gradients = layer_norm.rms_norm.backward(
        y, layer_norm.rms_norm.forward(x, weight, eps=EPS)[1], needs[:2], eps=EPS
    )
    assert tuple(g is not None for g in gradients) == needs[:2]


def test_one_channel_and_a_large_mean():
    rng = np.random.default_rng(3)
    x, _, weight, bias = _inputs(rng, (2, 3, 1), np.float64)
    y, _ = layer_norm.forward(x, weight, bias, eps=EPS)
    np.testing.assert_array_equal(y, np.broadcast_to(bias, y.shape))
    x = rng.standard_normal((4, 64)).astype(np.float32)
    far, near = (layer_norm.forward(x + s, None, None, eps=EPS)[0] for s in (np.float32(1000), 0))
    # x + 1000 keeps 24 - 10 bits after the point, so each element has an error of 1000·2⁻²⁴ = 6e-5
    np.testing.assert_allclose(far, near, atol=3e-4)
