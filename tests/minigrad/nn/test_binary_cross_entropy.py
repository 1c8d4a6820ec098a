"""Binary cross-entropy on logits: equal to PyTorch's, and accurate for logits of any size."""

import math
from typing import Any

import numpy as np
import pytest

from minigrad import ShapeError, Tensor, grad, gradcheck
from minigrad.nn.functional import binary_cross_entropy_with_logits as loss_of
from tests.minigrad.compare import assert_close, assert_same_as_torch

LOGITS = np.array([[0.0, 1.5, -2.0], [30.0, -30.0, 0.3]])
TARGETS = np.array([[1.0, 0.0, 0.25], [1.0, 1.0, 0.0]])
WEIGHT, POS_WEIGHT = np.array([[0.5], [2.0]]), np.array([1.0, 3.0, 0.5])


def by_hand(weight: Any = 1.0, pos_weight: Any = 1.0) -> np.ndarray:
    """The definition, which is accurate unless a probability is rounded to 0 or 1."""
    p = 1 / (1 + np.exp(-LOGITS))
    q = 1 / (1 + np.exp(LOGITS))
    return -weight * (pos_weight * TARGETS * np.log(p) + (1 - TARGETS) * np.log(q))


@pytest.mark.parametrize("pos_weight", [None, POS_WEIGHT])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_is_its_definition(weight: Any, pos_weight: Any) -> None:
    factors = [1.0 if w is None else w for w in (weight, pos_weight)]
    wanted = by_hand(*factors)
    logits = Tensor(LOGITS)
    for reduction, reduced in (("none", wanted), ("sum", wanted.sum()), ("mean", wanted.mean())):
        ours = loss_of(logits, TARGETS, weight, pos_weight=pos_weight, reduction=reduction)
        assert_close(ours.numpy(), reduced, 1e-14)
    default = loss_of(logits, Tensor(TARGETS), weight, pos_weight=pos_weight)
    assert_close(default.numpy(), wanted.mean(), 1e-14)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_is_torchs(reduction: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
    theirs = torch.nn.functional.binary_cross_entropy_with_logits
    options = {"reduction": reduction}  # PyTorch treats these weights as constants
    assert_same_as_torch(
        lambda z, t: loss_of(z, t, WEIGHT, pos_weight=POS_WEIGHT, **options),
        lambda z, t: theirs(
            z, t, torch.tensor(WEIGHT), pos_weight=torch.tensor(POS_WEIGHT), **options
        ),
        LOGITS,
        TARGETS,
    )


def test_what_is_almost_certain_keeps_its_digits() -> None:
    z = Tensor(np.array([20.0, -20.0, 80.0, -80.0, 1e30], np.float32), requires_grad=True)
    for right, sign in (([1, 0, 1, 0, 1], 1), ([0, 1, 0, 1, 0], -1)):
        loss = loss_of(z, np.array(right), reduction="none")
        rest = [math.log1p(math.exp(-sign * abs(float(v)))) if v < 1e3 else 0.0 for v in z.data]
        rest[-1] = 0.0 if sign == 1 else 1e30
        assert loss.dtype == np.float32
        np.testing.assert_allclose(loss.numpy(), rest, rtol=1e-6)
    gradient = grad(loss_of(z, np.array([1, 0, 1, 0, 1]), reduction="sum"), z).numpy()
    small = [math.exp(-20), math.exp(-80)]
    wanted = [-small[0], small[0], -small[1], small[1], 0]
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6)


def test_targets_may_be_booleans_and_integers() -> None:
    z = Tensor([1.0, -2.0])
    floats = loss_of(z, np.array([1.0, 0.0], np.float32))
    for targets in (np.array([True, False]), np.array([1, 0]), Tensor([1, 0])):
        found = loss_of(z, targets)
        assert found.dtype == np.float32
        assert found.item() == floats.item()


def test_one_target_may_stand_for_all() -> None:
    z = Tensor([[1.0], [-2.0]], requires_grad=True)
    wanted = loss_of(z, np.ones((2, 1), np.float32), reduction="none").numpy()
    for target in (1.0, 1, True, Tensor(1.0)):
        assert np.array_equal(loss_of(z, target, reduction="none").numpy(), wanted)
    gradcheck(lambda z: loss_of(z, 1.0), [Tensor(z.numpy().astype(float), requires_grad=True)])


def test_errors() -> None:
    z = Tensor(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="'median' is not"):
        loss_of(z, np.zeros((2, 3)), reduction="median")
    with pytest.raises(ShapeError, match=r"logits of shape \(2, 3\), targets of \(3,\)"):
        loss_of(z, np.zeros(3))
    with pytest.raises(ShapeError, match=r"pos_weight of shape \(2,\)"):
        loss_of(z, np.zeros((2, 3)), pos_weight=np.ones(2))
    with pytest.raises(ShapeError, match=r"weight of shape \(4, 2, 3\)"):
        loss_of(z, np.zeros((2, 3)), np.ones((4, 2, 3)))
