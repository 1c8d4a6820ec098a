"""linear: x Wᵀ + b."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_same_as_torch, float64

LEADING = [(), (1,), (5,), (2, 3), (2, 1, 3), (0,)]


@pytest.mark.parametrize("lead", LEADING)
def test_linear_is_torchs(lead: tuple[int, ...], rng: np.random.Generator) -> None:
    functional = pytest.importorskip("torch", reason="PyTorch is not there").nn.functional
    x, w, b = (rng.standard_normal(shape) for shape in ((*lead, 4), (3, 4), (3,)))
    for context in (mg.enable_grad, mg.textbook):
        with context():
            assert_same_as_torch(F.linear, functional.linear, x, w, b)
            assert_same_as_torch(F.linear, functional.linear, x, w)
            assert_same_as_torch(
                lambda x, w, b: F.linear(x, w, b, activation="relu"),
                lambda x, w, b: functional.linear(x, w, b).relu(),
                x,
                w,
                b,
            )


def test_only_the_wanted_gradients_are_computed(rng: np.random.Generator) -> None:
    x, w, b = float64(rng.standard_normal((2, 4)), rng.standard_normal((3, 4)), [0.0, 0.0, 0.0])
    w.requires_grad = False
    y = F.linear(x, w, b)
    y.sum().backward()
    assert x.grad is not None and b.grad is not None and w.grad is None


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        ((2, 5), (3, 4), None, r"linear: x of shape \(2, 5\) .* weight of shape \(3, 4\)"),
        ((), (3, 4), None, r"linear: x of shape \(\)"),
        ((2, 4), (4,), None, r"linear: .* weight of shape \(4,\)"),
        ((2, 4), (3, 4), (4,), r"linear: bias of shape \(4,\) for weight of shape \(3, 4\)"),
        ((2, 4), (3, 4), (1, 3), r"linear: bias of shape \(1, 3\)"),
    ],
)
def test_shapes_that_do_not_fit(x, weight, bias, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ShapeError, match=message):
        F.linear(mg.ones(x), mg.ones(weight), None if bias is None else mg.ones(bias))


def test_an_unknown_activation() -> None:
    with pytest.raises(ValueError, match="activation must be None or \"relu\", not 'gelu'"):
        F.linear(mg.ones((1, 2)), mg.ones((2, 2)), activation="gelu")
