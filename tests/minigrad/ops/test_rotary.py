"""Rotary positions."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor, grad
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_close, float64


def angles(time: int, half: int) -> np.ndarray:
    return np.outer(np.arange(time), 100.0 ** (-np.arange(half) / half))


def test_a_pair_is_turned_by_its_angle() -> None:
    x = Tensor(np.array([[1.0, 0.0], [0.0, 2.0]]))
    y = F.rotary(x, np.cos([[np.pi / 2]]), np.sin([[np.pi / 2]]))
    assert np.abs(y.numpy() - [[0, 1], [-2, 0]]).max() < 1e-15


def test_it_is_a_complex_product(rng: np.random.Generator) -> None:
    x, theta = rng.standard_normal((2, 5, 6)), angles(5, 3)
    turned = (x[..., :3] + 1j * x[..., 3:]) * np.exp(1j * theta)
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    assert_close(F.rotary(Tensor(x), np.cos(theta), np.sin(theta)).numpy(), expected)


def test_lengths_stay_and_scores_depend_on_distance_alone(rng: np.random.Generator) -> None:
    q, k, theta = rng.standard_normal(4), rng.standard_normal(4), angles(8, 2)
    qs, ks = (
        F.rotary(Tensor(np.tile(x, (8, 1))), np.cos(theta), np.sin(theta)).numpy() for x in (q, k)
    )
    assert_close(np.linalg.norm(qs, axis=-1), np.full(8, np.linalg.norm(q)))
    assert_close(qs[5] @ ks[3], qs[2] @ ks[0])


def test_the_gradient_turns_back(rng: np.random.Generator) -> None:
    (x,) = float64(rng.standard_normal((5, 6)))
    cos, sin = np.cos(angles(5, 3)), np.sin(angles(5, 3))
    y = F.rotary(x, cos, sin)
    assert_close(grad(y, x, y.detach()).numpy(), x.numpy())


@pytest.mark.parametrize("context", [mg.enable_grad, mg.textbook])
def test_some_heads_are_turned_and_the_others_stay(context: Any, rng: np.random.Generator) -> None:
    (x,) = float64(rng.standard_normal((2, 5, 4, 6)))
    cos, sin = (f(angles(5, 3))[:, None] for f in (np.cos, np.sin))
    upstream = Tensor(rng.standard_normal(x.shape))
    with context():
        y = F.rotary(x, cos, sin, heads=3)
        by_hand = mg.concatenate([F.rotary(x[:, :, :3], cos, sin), x[:, :, 3:]], axis=2)
        assert_close(y.numpy(), by_hand.numpy())
        assert_close(grad(y, x, upstream).numpy(), grad(by_hand, x, upstream).numpy())


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"rotary: x of shape \(2, 4\) does not have 3 heads"):
        F.rotary(mg.ones((2, 4)), np.ones(2), np.ones(2), heads=3)
    with pytest.raises(ShapeError, match=r"rotary of shapes \(2, 3\).*even last axis, not 3"):
        F.rotary(mg.ones((2, 3)), np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ShapeError, match=r"rotary.*\(2, 4\).*\(3, 2\)"):
        F.rotary(mg.ones((2, 4)), np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(TypeError, match="rotary: cos and sin are constants"):
        F.rotary(mg.ones((2, 4)), mg.ones((2, 2), requires_grad=True), mg.ones((2, 2)))
