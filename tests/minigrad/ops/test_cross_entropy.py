"""Softmax and cross-entropy in one."""

from math import log
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor, grad
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_close, assert_same_as_torch, float64

CONTEXTS = [mg.enable_grad, mg.textbook]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("ignored", [-100, -1, 2])
def test_cross_entropy_is_torchs(
    reduction: str, smoothing: float, ignored: int, context: Any, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    logits, targets = rng.standard_normal((11, 5)) * 3, rng.integers(0, 5, 11)
    targets[[1, 4]] = ignored
    options: dict[str, Any] = {
        "ignore_index": ignored,
        "label_smoothing": smoothing,
        "reduction": reduction,
    }
    with context():
        assert_same_as_torch(
            lambda z: F.cross_entropy(z, targets, **options),
            lambda z: torch.nn.functional.cross_entropy(z, torch.tensor(targets), **options),
            logits,
        )


@pytest.mark.parametrize("context", CONTEXTS)
def test_leading_axes_are_rows(context: Any, rng: np.random.Generator) -> None:
    (logits,) = float64(rng.standard_normal((2, 3, 4)))
    targets = rng.integers(0, 4, (2, 3))
    with context():
        loss = F.cross_entropy(logits, targets, reduction="none")
        assert loss.shape == (2, 3)
        flat = F.cross_entropy(logits.reshape(6, 4), targets.reshape(6))
        assert_close(F.cross_entropy(logits, targets).item(), flat.item())
        assert_close(loss.numpy().mean(), flat.item())


@pytest.mark.parametrize("context", CONTEXTS)
def test_equal_logits_cost_ln_v(context: Any) -> None:
    with context():
        assert_close(F.cross_entropy(Tensor(np.zeros((3, 7))), [0, 3, 6]).item(), log(7))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits(context: Any, dtype: Any) -> None:
    z = Tensor(np.array([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]], dtype), requires_grad=True)
    with context():
        loss = F.cross_entropy(z, [0, 2], reduction="none")
        assert loss.tolist() == [0, 2e4]
        assert grad(loss.sum(), z).tolist() == [[0, 0, 0], [1, 0, -1]]


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_masked_class_costs_nothing(context: Any) -> None:
    """A logit of -inf excludes a class; the others share the probability."""
    z = Tensor(np.array([[0.0, -np.inf, 0.0]]), requires_grad=True)
    with context():
        loss = F.cross_entropy(z, [0])
        assert_close(loss.item(), log(2))
        assert grad(loss, z).tolist() == [[-0.5, 0, 0.5]]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("ignored", [-100, 0])
def test_rows_that_are_ignored_get_no_gradient(context: Any, ignored: int) -> None:
    (z,) = float64([[1.0, 2.0], [np.inf, 3.0]])  # even infinities in ignored rows do not matter
    z.data[1, 0] = 50
    with context():
        loss = F.cross_entropy(z, [1, ignored], ignore_index=ignored)
        assert grad(loss, z).numpy()[1].tolist() == [0, 0]


@pytest.mark.parametrize("ignored", [-100, 1])
def test_a_mean_of_nothing_is_an_error(ignored: int) -> None:
    z, targets = mg.ones((2, 3)), np.array([ignored, ignored])
    with pytest.raises(ValueError, match="no target counts, so there is no mean"):
        F.cross_entropy(z, targets, ignore_index=ignored)
    assert F.cross_entropy(z, targets, ignore_index=ignored, reduction="sum").item() == 0
    with pytest.raises(ValueError, match="no target counts"):
        F.cross_entropy(mg.ones((0, 3)), np.zeros(0, int))


def test_the_targets_dtype_does_not_matter() -> None:
    z = Tensor(np.arange(6.0).reshape(2, 3))
    losses = {F.cross_entropy(z, np.array([0, 2], t)).item() for t in ("u1", "i2", "i4", "u8")}
    assert len(losses) == 1
    assert F.cross_entropy(z, [0, 2]).item() in losses
    with mg.textbook():
        assert_close(F.cross_entropy(z, np.array([0, 2], "u1")).item(), losses.pop())


def test_errors() -> None:
    z = mg.ones((2, 3))
    with pytest.raises(
        ShapeError, match=r"cross_entropy: logits of shape \(2, 3\).*\(2,\), not \(3,"
    ):
        F.cross_entropy(z, [0, 1, 2])
    with pytest.raises(ShapeError, match=r"cross_entropy: logits of shape \(\)"):
        F.cross_entropy(mg.ones(()), 0)
    with pytest.raises(IndexError, match=r"cross_entropy: id 3 is out of range.*vocabulary of 3"):
        F.cross_entropy(z, [0, 3])
    with pytest.raises(IndexError, match="cross_entropy: id -1 is out of range"):
        F.cross_entropy(z, [0, -1])
    with pytest.raises(TypeError, match="cross_entropy: ids must be integers, not float32"):
        F.cross_entropy(z, [0.0, 1.0])
    with pytest.raises(ValueError, match="reduction 'avg'"):
        F.cross_entropy(z, [0, 1], reduction="avg")
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        F.cross_entropy(z, [0, 1], label_smoothing=1.0)
