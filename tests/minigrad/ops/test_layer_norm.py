"""The ops layer_norm, add_layer_norm and rms_norm."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor, grad
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_same_as_torch, float64

CONTEXTS = [mg.enable_grad, mg.textbook]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 8), (1, 2), (2, 1, 3, 7)])
def test_layer_norm_is_torchs(shape: Any, context: Any, rng: np.random.Generator) -> None:
    functional = pytest.importorskip("torch", reason="PyTorch is not there").nn.functional
    size = shape[-1:]
    x, r, w, b = (rng.standard_normal(s) for s in (shape, shape, size, size))
    with context():
        assert_same_as_torch(
            F.layer_norm,
            lambda x, w, b: functional.layer_norm(x, size, w, b),
            x + 3,
            w,
            b,
        )
        assert_same_as_torch(
            lambda x, r, w, b: F.add_layer_norm(x, r, w, b, eps=1e-3),
            lambda x, r, w, b: functional.layer_norm(x + r, size, w, b, eps=1e-3),
            x,
            r,
            w,
            b,
        )
        assert_same_as_torch(
            lambda x: F.layer_norm(x, None, None), lambda x: functional.layer_norm(x, size), x
        )


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 8), (3, 1)])
def test_rms_norm_is_torchs(shape: Any, rng: np.random.Generator) -> None:
    functional = pytest.importorskip("torch", reason="PyTorch is not there").nn.functional
    size = shape[-1:]
    x, w = rng.standard_normal(shape), rng.standard_normal(size)
    assert_same_as_torch(
        lambda x, w: F.rms_norm(x, w, eps=1e-5),
        lambda x, w: functional.rms_norm(x, size, w, eps=1e-5),
        x,
        w,
    )
    assert_same_as_torch(
        lambda x: F.rms_norm(x, None), lambda x: functional.rms_norm(x, size, eps=1e-5), x
    )


@pytest.mark.parametrize("context", CONTEXTS)
def test_rows_have_mean_0_and_variance_1(context: Any, rng: np.random.Generator) -> None:
    x = Tensor(rng.standard_normal((6, 50)) * 7 + 100)
    with context():
        y = F.layer_norm(x, None, None, eps=0.0).numpy()
    assert np.abs(y.mean(-1)).max() < 1e-12
    assert np.abs(y.var(-1) - 1).max() < 1e-12


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_large_mean_costs_no_precision_in_float32(context: Any, rng: np.random.Generator) -> None:
    """E[x²] - E[x]² would have no correct digit here."""
    x = rng.standard_normal((4, 64)).astype(np.float32) + np.float32(1000)
    exact = (x - x.astype(float).mean(-1, keepdims=True)) / x.astype(float).std(-1, keepdims=True)
    with context():
        y = F.layer_norm(Tensor(x), None, None, eps=1e-12).numpy()
    assert np.abs(y - exact).max() < 2e-3


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_constant_row_is_0_and_its_gradient_finite(context: Any) -> None:
    (x,) = float64(np.full((2, 4), 3.0))
    with context():
        y = F.layer_norm(x, None, None)
        assert (y.numpy() == 0).all()
        dx = grad(y, x, Tensor(np.array([[1.0, 2, 3, 4], [0, 0, 0, 1]])))
    assert np.isfinite(dx.numpy()).all()


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_shift_and_a_scale_of_the_row_have_no_gradient(
    context: Any, rng: np.random.Generator
) -> None:
    (x,) = float64(rng.standard_normal((3, 6)))
    with context():
        dx = grad(F.layer_norm(x, None, None, eps=0.0), x, Tensor(rng.standard_normal((3, 6))))
    centred = x.numpy() - x.numpy().mean(-1, keepdims=True)
    assert np.abs(dx.numpy().sum(-1)).max() < 1e-12
    assert np.abs((dx.numpy() * centred).sum(-1)).max() < 1e-12
    assert np.abs(dx.numpy()).max() > 0.1, "other directions have one"


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda x: F.layer_norm(x, mg.ones(3), None),
            r"layer_norm: weight of shape \(3,\).*\(2, 4",
        ),
        (lambda x: F.layer_norm(x, None, mg.ones((1, 4))), r"layer_norm: bias of shape \(1, 4\)"),
        (lambda x: F.layer_norm(mg.ones(()), mg.ones(1), None), r"layer_norm: x of shape \(\)"),
        (lambda x: F.layer_norm(mg.ones(()), None, None), r"layer_norm.*\(\)"),
        (
            lambda x: F.add_layer_norm(x, x[:1], None, None),
            r"add_layer_norm: x is \(2, 4\).*\(1, 4",
        ),
        (
            lambda x: F.add_layer_norm(x, x, mg.ones(3), None),
            r"add_layer_norm: weight of shape \(3",
        ),
        (lambda x: F.rms_norm(x, mg.ones(3)), r"rms_norm: weight of shape \(3,\)"),
    ],
)
def test_shapes_that_do_not_fit(use: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        use(mg.ones((2, 4)))
