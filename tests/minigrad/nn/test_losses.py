"""Compares losses with results by hand, with finite differences and with PyTorch's."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_close

REDUCTIONS = ("mean", "sum", "none")


def test_by_hand() -> None:
    x, t = mg.Tensor([1.0, -2.0, 5.0]), np.array([0.0, 0.0, 2.0], np.float32)
    assert np.array_equal(F.mse_loss(x, t, reduction="none").numpy(), [1, 4, 9])
    assert np.isclose(F.mse_loss(x, t).item(), 14 / 3)
    assert F.l1_loss(x, t, reduction="sum").item() == 6
    # up to delta half the square, beyond it 2·(size - 1)
    huber = F.huber_loss(x, t, delta=2.0, reduction="none")
    assert np.array_equal(huber.numpy(), [0.5, 2, 4])


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_a_single_number_is_the_target_of_all(name: str) -> None:
    function = getattr(F, name)
    x = mg.Tensor([[1.0], [-2.0], [5.0]])
    wanted = function(x, mg.full((3, 1), 0.5), reduction="none")
    for target in (0.5, np.float32(0.5), np.array(0.5, np.float32), mg.Tensor(0.5)):
        found = function(x, target, reduction="none")
        assert found.dtype == np.float32
        assert np.array_equal(found.numpy(), wanted.numpy())
    with pytest.raises(mg.ShapeError):
        function(mg.Tensor(0.5), np.ones(3))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_regression(name: str, reduction: str) -> None:
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((3, 4)) * 2, rng.standard_normal((3, 4))
    function = getattr(F, name)
    mg.gradcheck(
        lambda x, t: function(x, t, reduction=reduction),
        [mg.Tensor(x, requires_grad=True), mg.Tensor(t, requires_grad=True)],
    )
    torch = pytest.importorskip("torch", reason="PyTorch is not there to compare with")
    other = getattr(torch.nn.functional, name)(
        torch.tensor(x), torch.tensor(t), reduction=reduction
    )
    assert_close(function(x, t, reduction=reduction).numpy(), other.numpy(), 1e-14)


def test_gradients_at_a_corner() -> None:
    x = mg.Tensor([0.0, 1.0, -1.0], requires_grad=True)
    F.l1_loss(x, np.zeros(3), reduction="sum").backward()
    assert np.array_equal(x.grad.numpy(), [0, 1, -1])
    x.grad = None
    F.huber_loss(x, np.zeros(3), delta=1.0, reduction="sum").backward()
    assert np.array_equal(x.grad.numpy(), [0, 1, -1])


LOGITS = np.random.default_rng(3).standard_normal((2, 3, 5))
IDS = np.array([[0, 4, 2], [2, 2, 1]])
WEIGHT = np.array([0.5, 2.0, 0.0, 1.0, 3.0])
CHANCES = np.random.default_rng(4).dirichlet(np.ones(5), (2, 3))

CLASSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "weights": (IDS, {"weight": WEIGHT}),
    "weights, ignoring": (IDS, {"weight": WEIGHT, "ignore_index": 4}),
    "weights, smoothing": (IDS, {"weight": WEIGHT, "label_smoothing": 0.2}),
    "all of it": (IDS, {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": 0}),
    "an ignored target out of range": (
        np.where(IDS == 4, -100, IDS),
        {"weight": WEIGHT, "label_smoothing": 0.1},
    ),
    "probabilities": (CHANCES, {}),
    "probabilities, weights, smoothing": (CHANCES, {"weight": WEIGHT, "label_smoothing": 0.2}),
}


def reference(targets: np.ndarray, reduction: str, settings: dict[str, Any]) -> np.ndarray:
    """-Σ w·t'·ln p by its definition, row by row."""
    weight = settings.get("weight", np.ones(5))
    smoothing = settings.get("label_smoothing", 0.0)
    losses, factors = [], []
    for z, target in zip(LOGITS.reshape(-1, 5), targets.reshape(6, -1), strict=True):
        logs = z - np.log(np.exp(z).sum())
        if targets.dtype.kind == "f":
            wanted, factor = target, 1.0
        elif target[0] == settings.get("ignore_index", -100):
            wanted, factor = np.zeros(5), 0.0
        else:
            wanted, factor = np.eye(5)[target[0]], weight[target[0]]
        counts = 1.0 if wanted.any() else 0.0
        wanted = (1 - smoothing) * wanted + counts * smoothing / 5
        losses.append(-(weight * wanted * logs).sum())
        factors.append(factor)
    if reduction == "none":
        return np.array(losses).reshape(2, 3)
    return np.array(np.sum(losses) / (np.sum(factors) if reduction == "mean" else 1))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label", CLASSES)
def test_cross_entropy(label: str, reduction: str) -> None:
    targets, settings = CLASSES[label]
    loss = F.cross_entropy(mg.Tensor(LOGITS), targets, reduction=reduction, **settings)
    assert_close(loss.numpy(), reference(targets, reduction, settings), 1e-14)
    mg.gradcheck(
        lambda z: F.cross_entropy(z, targets, reduction=reduction, **settings),
        [mg.Tensor(LOGITS, requires_grad=True)],
    )
    torch = pytest.importorskip("torch", reason="PyTorch is not there to compare with")
    options = {k: torch.tensor(v) if k == "weight" else v for k, v in settings.items()}
    if targets.dtype.kind == "f":
        flat = torch.tensor(targets.reshape(6, 5))
    else:
        flat = torch.tensor(targets.reshape(6))
    other = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS.reshape(6, 5)), flat, reduction=reduction, **options
    ).numpy()
    assert_close(loss.numpy().reshape(other.shape), other, 1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll_is_cross_entropy_after_log_softmax(reduction: str) -> None:
    logs = mg.log_softmax(mg.Tensor(LOGITS), -1)
    for settings in ({}, {"weight": WEIGHT}, {"ignore_index": 2}):
        found = F.nll_loss(logs, IDS, reduction=reduction, **settings)
        wanted = F.cross_entropy(mg.Tensor(LOGITS), IDS, reduction=reduction, **settings)
        assert_close(found.numpy(), wanted.numpy(), 1e-14)
    mg.gradcheck(
        lambda x: F.nll_loss(x, IDS, WEIGHT, reduction=reduction),
        [mg.Tensor(LOGITS, requires_grad=True)],
    )


def test_targets_of_minus_100_count_for_nothing_unless_told_otherwise() -> None:
    """As in PyTorch. With other axes too, ids range up to the number of classes."""
    ids, counted = np.array([[4, -100, 0], [-100, 1, 2]]), np.array([[1, 0, 1], [0, 1, 1]], bool)
    probabilities = mg.softmax(mg.Tensor(LOGITS)).numpy()
    chosen = np.take_along_axis(probabilities, np.where(counted, ids, 0)[..., None], -1)[..., 0]
    expected = -np.log(chosen[counted]).mean()
    log_probabilities = mg.log_softmax(mg.Tensor(LOGITS))
    assert F.nll_loss(log_probabilities, ids).item() == pytest.approx(expected, rel=1e-6)
    assert F.cross_entropy(mg.Tensor(LOGITS), ids).item() == pytest.approx(expected, rel=1e-6)


def test_as_modules() -> None:
    x, t = np.array([1.0, -2.0, 5.0]), np.zeros(3)
    assert nn.MSELoss()(x, t).item() == F.mse_loss(x, t).item()
    assert nn.L1Loss(reduction="sum")(x, t).item() == 8
    assert nn.HuberLoss(delta=0.5, reduction="sum")(x, t).item() == 3.625
    assert repr(nn.HuberLoss(delta=0.5)) == "HuberLoss(delta=0.5, reduction=mean)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.mse_loss(np.ones((3, 1)), np.ones(3)),
            mg.ShapeError,
            r"mse_loss: prediction of shape \(3, 1\), target of shape \(3,\). Reshape one of them",
        ),
        (lambda: F.l1_loss(np.ones(1), np.ones(1), reduction="all"), ValueError, "'all' is not"),
        (lambda: F.huber_loss(np.ones(1), np.ones(1), delta=0), ValueError, "delta must be above"),
        (
            lambda: F.nll_loss(LOGITS, IDS[0]),
            mg.ShapeError,
            r"scores of shape \(2, 3, 5\) need targets of shape \(2, 3\), not \(3,\)",
        ),
        (lambda: F.nll_loss(LOGITS, IDS + 1), IndexError, "nll_loss: id 5 is out of range"),
        (lambda: F.nll_loss(LOGITS, [[0, 9, 1], [7, 2, 3]]), IndexError, "nll_loss: id 9 is"),
        (lambda: F.nll_loss(LOGITS, np.full((2, 3), 100)), IndexError, "id 100 is out of range"),
        (lambda: F.nll_loss(LOGITS, np.full((2, 3), -99)), IndexError, "id -99 is out of range"),
        (
            lambda: F.cross_entropy(mg.Tensor(LOGITS), np.full((2, 3), 100)),
            IndexError,
            "id 100 is out of range",
        ),
        (
            lambda: F.cross_entropy(mg.Tensor(LOGITS), np.full((2, 3), -99)),
            IndexError,
            "id -99 is out of range",
        ),
        (
            lambda: F.cross_entropy(mg.Tensor(LOGITS), CHANCES[..., 0], WEIGHT),
            TypeError,
            "cross_entropy: ids must be integers, not float",
        ),
        (
            lambda: F.cross_entropy(mg.Tensor(LOGITS), IDS, weight=np.ones(4)),
            mg.ShapeError,
            r"cross_entropy: weight of shape \(4,\) for 5 classes",
        ),
        (
            lambda: F.cross_entropy(mg.Tensor(LOGITS), CHANCES[..., :4]),
            mg.ShapeError,
            r"probabilities of shape \(2, 3, 4\) for logits of \(2, 3, 5\)",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
