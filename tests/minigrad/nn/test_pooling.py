"""Compares pooling with results by hand and with PyTorch's."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_close


def test_by_hand() -> None:
    x = mg.Tensor([[[1.0, 4.0, 2.0, 3.0, 9.0]]])
    assert np.array_equal(F.max_pool1d(x, 2).numpy(), [[[4, 3]]])
    assert np.array_equal(F.avg_pool1d(x, 2).numpy(), [[[2.5, 2.5]]])
    assert np.array_equal(F.max_pool1d(x, 3, 1).numpy(), [[[4, 4, 9]]])
    assert np.array_equal(F.max_pool1d(x, 2, 1, dilation=2).numpy(), [[[2, 4, 9]]])
    assert np.array_equal(F.max_pool1d(-x, 2, padding=1).numpy(), [[[-1, -2, -3]]])
    assert np.array_equal(F.avg_pool1d(x, 2, padding=1).numpy(), [[[0.5, 3, 6]]])
    alone = F.avg_pool1d(x, 2, padding=1, count_include_pad=False)
    assert np.array_equal(alone.numpy(), [[[1, 3, 6]]])


def test_the_gradient_goes_to_the_largest_and_is_shared_by_equals() -> None:
    x = mg.Tensor([[[1.0, 4.0, 2.0, 2.0]]], requires_grad=True)
    (F.max_pool1d(x, 2) * mg.Tensor([3.0, 5.0])).sum().backward()
    assert np.array_equal(x.grad.numpy(), [[[0, 3, 2.5, 2.5]]])


SETTINGS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
]
PAIRS = [{"kernel_size": (2, 3)}, {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)}]


@pytest.mark.parametrize("name", ["max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"])
def test_torchs(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there to compare with")
    shape = (2, 3, 7) if name.endswith("1d") else (2, 3, 7, 6)
    rng = np.random.default_rng(0)
    array = rng.permutation(int(np.prod(shape))).reshape(shape) / 10  # no ties
    options: list[dict[str, Any]] = list(SETTINGS)
    if name.endswith("2d"):
        options += PAIRS
    if name.startswith("max"):
        options += [{"kernel_size": 2, "stride": 1, "dilation": 2}]
    else:
        options += [{**o, "count_include_pad": False} for o in options]
    for settings in options:
        x, z = mg.Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        y, t = getattr(F, name)(x, **settings), getattr(torch.nn.functional, name)(z, **settings)
        dy = rng.standard_normal(y.shape)
        y.backward(mg.Tensor(dy))
        t.backward(torch.tensor(dy))
        assert_close(y.numpy(), t.detach().numpy(), 1e-13)
        assert_close(x.grad.numpy(), z.grad.numpy(), 1e-13)


LAYERS = [nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("settings", [(2,), (3, 2), (3, 1, 1)])
def test_layers(kind: Any, settings: tuple[int, ...]) -> None:
    axes = int(kind.__name__[-2])
    rng = np.random.default_rng(0)
    x = rng.permutation(2 * 5**axes).reshape((1, 2, *(5,) * axes)) / 7
    layer = kind(*settings)
    function = getattr(F, kind.__name__.replace("Pool", "_pool").lower())
    assert np.array_equal(layer(mg.Tensor(x)).numpy(), function(mg.Tensor(x), *settings).numpy())
    assert np.array_equal(layer(mg.Tensor(x[0])).numpy(), layer(mg.Tensor(x)).numpy()[0])
    mg.gradcheck(layer, [mg.Tensor(x, requires_grad=True)])


def test_repr() -> None:
    assert repr(nn.MaxPool2d(2)) == "MaxPool2d(2, stride=2)"
    assert repr(nn.AvgPool1d(3, 1, padding=1)) == "AvgPool1d(3, stride=1, padding=1)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: F.max_pool1d(x[0, 0], 2),
            mg.ShapeError,
            r"max_pool1d: x of shape \(4,\) must have 3 axes or 2",
        ),
        (
            lambda x: F.avg_pool2d(x[0, 0], 2),
            mg.ShapeError,
            r"avg_pool2d: x of shape \(4,\) must have 4 axes or 3",
        ),
        (
            lambda x: F.max_pool1d(x, 2, dilation=4),
            mg.ShapeError,
            r"no window of \(2,\) fits in \(4,\) elements",
        ),
        (
            lambda x: F.max_pool1d(x, 5),
            mg.ShapeError,
            r"no window of \(5,\) fits in \(4,\) elements",
        ),
        (lambda x: F.avg_pool1d(x, 0), ValueError, "kernel_size must be a number from 1 on"),
        (lambda x: F.avg_pool1d(x, 2, 0), ValueError, "stride must be a number from 1 on"),
        (
            lambda x: F.max_pool1d(x, 2, padding=2),
            ValueError,
            r"padding \(2,\) is more than half of the kernel \(2,\)",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(mg.Tensor(np.ones((1, 1, 4))))
