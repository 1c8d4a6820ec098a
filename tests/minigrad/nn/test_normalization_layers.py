"""BatchNorm and GroupNorm as layers: running statistics, evaluation, saving."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from tests.minigrad.compare import assert_close

SHAPES = {"1d": (6, 3), "1d, long": (4, 3, 5), "2d": (2, 3, 4, 3)}


def kind_of(label: str) -> Any:
    return nn.BatchNorm2d if label == "2d" else nn.BatchNorm1d


def batches(label: str, dtype: Any = np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(2 * rng.standard_normal(SHAPES[label]) + 3).astype(dtype) for _ in range(3)]


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("label", SHAPES)
def test_running_statistics(label: str, momentum: float | None) -> None:
    layer = kind_of(label)(3, momentum=momentum, dtype=np.float64)
    mean, var = np.zeros(3), np.ones(3)
    for number, x in enumerate(batches(label), 1):
        layer(mg.Tensor(x))
        rows = np.moveaxis(x, 1, 0).reshape(3, -1)
        share = 1 / number if momentum is None else momentum
        mean = (1 - share) * mean + share * rows.mean(1)
        var = (1 - share) * var + share * rows.var(1, ddof=1)
    assert_close(layer.running_mean.numpy(), mean, 1e-14)
    assert_close(layer.running_var.numpy(), var, 1e-14)
    assert layer.num_batches_tracked.item() == 3
    layer.eval()
    x = batches(label)[0]
    shape = (3, *(1,) * (x.ndim - 2))
    wanted = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5)
    assert_close(layer(mg.Tensor(x)).numpy(), wanted, 1e-13)
    assert layer.num_batches_tracked.item() == 3


@pytest.mark.parametrize("label", SHAPES)
def test_torchs(label: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there to compare with")
    kind = kind_of(label)
    ours, theirs = kind(3, dtype=np.float64), getattr(torch.nn, kind.__name__)(3).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for x in batches(label):
        y, z = ours(mg.Tensor(x)), theirs(torch.tensor(x))
        assert_close(y.numpy(), z.detach().numpy(), 1e-13)
    for name, value in theirs.state_dict().items():
        assert_close(ours.state_dict()[name].astype(float), value.numpy().astype(float), 1e-13)
    ours.eval()
    theirs.eval()
    x = batches(label)[1]
    assert_close(ours(mg.Tensor(x)).numpy(), theirs(torch.tensor(x)).detach().numpy(), 1e-13)


def test_without_running_statistics_and_without_weights() -> None:
    layer = nn.BatchNorm1d(3, affine=False, track_running_stats=False, dtype=np.float64)
    assert layer.state_dict() == {} and layer.parameters() == []
    x = mg.Tensor(batches("1d")[0])
    trained = layer(x).numpy()
    assert np.array_equal(layer.eval()(x).numpy(), trained)
    assert np.allclose(trained.mean(0), 0, atol=1e-14)


@pytest.mark.parametrize("training", [True, False])
def test_gradients(training: bool) -> None:
    layer = nn.BatchNorm2d(3, dtype=np.float64)
    x = batches("2d")[0]
    layer(mg.Tensor(x))
    mg.gradcheck_module(layer.train(training), [mg.Tensor(x, requires_grad=True)])
    group = nn.GroupNorm(1, 3, dtype=np.float64)
    mg.gradcheck_module(group, [mg.Tensor(x, requires_grad=True)])


def test_a_graph_of_evaluation_notices_that_the_statistics_moved() -> None:
    layer = nn.BatchNorm1d(3, dtype=np.float64)
    x = mg.Tensor(batches("1d")[0], requires_grad=True)
    y = layer.eval()(x)
    layer.train()(x)
    with pytest.raises(mg.InPlaceError):
        y.sum().backward()


def test_group_norm() -> None:
    layer = nn.GroupNorm(2, 4)
    assert repr(layer) == "GroupNorm(2, 4, eps=1e-05)"
    assert repr(nn.BatchNorm1d(4)) == "BatchNorm1d(4, eps=1e-05, momentum=0.1)"
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    y = layer(mg.Tensor(x)).numpy().reshape(3, 2, -1)
    assert np.allclose(y.mean(-1), 0, atol=1e-6) and np.allclose(y.std(-1), 1, atol=1e-4)
    assert nn.GroupNorm(2, 4, affine=False).parameters() == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.BatchNorm1d(0), ValueError, "BatchNorm1d: num_features must be at least 1"),
        (
            lambda: nn.BatchNorm1d(3)(mg.ones((2, 3, 4, 4))),
            mg.ShapeError,
            r"BatchNorm1d: x of shape \(2, 3, 4, 4\) must have 2 or 3 axes",
        ),
        (lambda: nn.BatchNorm2d(3)(mg.ones((2, 3))), mg.ShapeError, "must have 4 axes"),
        (lambda: nn.BatchNorm1d(3)(mg.ones((1, 3))), mg.ShapeError, "Train on larger batches"),
        (lambda: nn.GroupNorm(3, 4), ValueError, "4 channels cannot be cut into 3 equal groups"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
