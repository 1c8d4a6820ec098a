"""Activation kernels on the CPU. ops/test_relative_accuracy compares them with mpmath too."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.kernels.cpu import KERNELS, activations
from minigrad.ops import TEXTBOOK
from tests.minigrad.kernels.twins import check_twins, layouts

OPS = {
    "sigmoid": {},
    "silu": {},
    "tanh": {},
    "gelu": {"approximate": "none"},
    "gelu, tanh": {"approximate": "tanh"},
}
SHAPES = [(), (1,), (0, 3), (7, 3), (2, 3, 4, 5), (3, 40_001)]  # the last one has several slices


def _name(label: str) -> str:
    return label.split(",")[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("label", OPS)
def test_equals_textbook(label, shape, dtype):
    rng = np.random.default_rng(0)
    x = np.asarray(rng.standard_normal(shape) * 3, dtype)
    check_twins(_name(label), (x,), rng, **OPS[label])


@pytest.mark.parametrize("size", [1.0, 30.0, 1e3, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("label", OPS)
def test_far_from_zero(label, dtype, size):
    """One large element makes its slice use another formula; other elements must not change."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(70_000).astype(dtype)
    x[5::1000] *= dtype(size)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        check_twins(_name(label), (x,), rng, condition=10, **OPS[label])  # eᵘ, u of up to 90
    x[17] = np.nan
    y, saved = KERNELS[TEXTBOOK[_name(label)]].forward(x, **OPS[label])
    (dx,) = KERNELS[TEXTBOOK[_name(label)]].backward(np.ones_like(x), saved, (True,), **OPS[label])
    assert np.isnan(y).nonzero()[0].tolist() == np.isnan(dx).nonzero()[0].tolist() == [17]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("label", OPS)
def test_infinities_and_signed_zeros_are_the_textbooks(label, dtype):
    x = np.array([np.inf, -np.inf, 0.0, -0.0, 1.0], dtype)
    op, statics = TEXTBOOK[_name(label)], OPS[label]
    dy = np.full_like(x, 2)
    with np.errstate(invalid="ignore"):  # inf·0, where SiLU and GELU approach 0 from below
        y, saved = KERNELS[op].forward(x, **statics)
        (dx,) = KERNELS[op].backward(dy, saved, (True,), **statics)
        wanted_y, wanted_saved = op.forward(np, x, **statics)
        (wanted_dx,) = op.backward(np, dy, wanted_saved, (True,), **statics)
    for got, wanted in ((y, wanted_y), (dx, wanted_dx)):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
        np.testing.assert_array_equal(np.signbit(got[2:]), np.signbit(wanted[2:]))


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1)))))
@pytest.mark.parametrize("shape", [(3, 5, 6), (30, 50, 60)])
@pytest.mark.parametrize("label", OPS)
def test_any_memory_order(label, shape, layout):
    rng = np.random.default_rng(2)
    x = layouts(rng.standard_normal(shape).astype(np.float32))[layout]
    check_twins(_name(label), (x,), rng, **OPS[label])
    y, _ = KERNELS[TEXTBOOK[_name(label)]].forward(x, **OPS[label])
    assert np.argsort(y.strides).tolist() == np.argsort(np.abs(x.strides)).tolist()


@pytest.mark.parametrize("label", OPS)
def test_other_orders_of_bytes_and_long_doubles(label):
    numbers = np.random.default_rng(3).standard_normal(40_000)
    function = getattr(mg, _name(label))
    options = {"approximate": "tanh"} if "," in label else {}
    wanted = None
    for dtype in (np.float64, ">f8", np.longdouble):
        x = mg.Tensor(numbers.astype(dtype), requires_grad=True)
        y = function(x, **options)
        dx = mg.grad((y * y).sum(), x)
        with mg.no_grad():
            np.testing.assert_array_equal(function(x, **options).numpy(), y.numpy())
        found = np.stack([y.numpy(), dx.numpy()]).astype(np.float64)
        wanted = found if wanted is None else wanted
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1)))))
@pytest.mark.parametrize("shape", [(2,), (0, 4), (3, 5, 6), (30, 50, 120)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gate_equals_textbook(dtype, shape, layout):
    rng = np.random.default_rng(4)
    x = layouts((rng.standard_normal(shape) * 3).astype(dtype))[layout]
    check_twins("swiglu", (x,), rng)


def test_slices_are_shorter_than_what_is_tried():
    """So the cases above test one slice and many slices, in both dtypes."""
    assert 30 * 50 * 60 * 4 > activations.SLICE > 2 * 3 * 4 * 5 * 8
    assert activations.SLICE < 70_000 * 4
