"""Values and gradients that are a matter of definition: at NaN, infinity, 0, limits, and of empty
arrays. Where PyTorch has a definition, ours is the same."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from minigrad.nn import functional as F

nan, inf = np.nan, np.inf


PAGES = Path(mg.ops.__file__).parent


def test_no_page_asks_what_its_namespace_has() -> None:
    """A page may ask what `xp` is, but not which functions it has: that changes with NumPy."""
    for path in PAGES.rglob("*.py"):
        found = re.findall(r"hasattr\(xp|isinstance\(xp", path.read_text("utf-8"))
        assert not found, path.name


def gradients(function: Callable[..., Tensor], *numbers: Any, seed: Any = None) -> list[Any]:
    tensors = [Tensor(np.asarray(n, np.float64), requires_grad=True) for n in numbers]
    y = function(*tensors)
    seed = Tensor(np.ones(y.shape) if seed is None else np.asarray(seed, np.float64))
    return [g.tolist() for g in mg.grad(y, tensors, seed)]


def same(got: Any, want: Any) -> bool:
    return np.array_equal(np.asarray(got, float), np.asarray(want, float), equal_nan=True)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_nan_passes_through_maximum_and_minimum(name: str) -> None:
    x, y = [nan, 1.0, nan, 2.0], [1.0, nan, nan, 2.0]
    function = getattr(mg, name)
    assert same(function(np.array(x), np.array(y)).numpy(), [nan, nan, nan, 2])
    dx, dy = gradients(function, x, y, seed=[3, 4, 5, 6])
    assert dx == dy == [3, 4, 5, 3]


@pytest.mark.parametrize("name", ["max", "min"])
def test_nan_passes_through_max_and_min(name: str) -> None:
    x = [[1.0, nan, 3.0, nan], [inf, inf, -inf, -inf]]
    function = getattr(mg, name)
    assert same(function(np.array(x), axis=1).numpy()[0], nan)
    (dx,) = gradients(lambda x: function(x, axis=1), x, seed=[2, 4])
    assert dx == [[0, 1, 0, 1], [2, 2, 0, 0] if name == "max" else [0, 0, 2, 2]]
    (dx,) = gradients(function, x, seed=4)
    assert dx == [[0, 2, 0, 2], [0, 0, 0, 0]]


def test_nan_passes_through_relu() -> None:
    x = np.array([nan, -1.0, 0.0, 2.0, inf, -inf])
    assert same(mg.relu(x).numpy(), [nan, 0, 0, 2, inf, 0])
    assert gradients(mg.relu, x, seed=[5, inf, 7, 8, 9, nan]) == [[5, 0, 0, 8, 9, 0]]


@pytest.mark.parametrize("textbook", [False, True])
def test_nan_passes_through_a_linear_layer_with_relu(textbook: bool) -> None:
    x = Tensor([[nan], [1.0], [-1.0]], requires_grad=True)
    weight = Tensor([[2.0]], requires_grad=True)
    bias = Tensor([0.0], requires_grad=True)

    def run() -> list[Any]:
        y = F.linear(x, weight, bias, activation="relu")
        assert same(y.numpy(), [[nan], [2], [0]])
        return [g.tolist() for g in mg.grad(y.sum(), [x, bias])]

    if textbook:
        with mg.textbook():
            assert run() == [[[2], [2], [0]], [2]]
    else:
        assert run() == [[[2], [2], [0]], [2]]


def test_clip_with_tensors_is_clip_with_numbers() -> None:
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, nan])
    low, high = np.full(6, -1.0), np.full(6, 1.0)
    with_numbers = gradients(lambda x: mg.clip(x, -1, 1), x)[0]
    dx, dlow, dhigh = gradients(mg.clip, x, low, high)
    assert dx == with_numbers == [0, 1, 1, 1, 0, 1]
    assert dlow == [1, 0, 0, 0, 0, 0] and dhigh == [0, 0, 0, 0, 1, 0]
    assert gradients(mg.clip, x, low) == [[0, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]]
    assert gradients(lambda x, h: mg.clip(x, None, h), x, high)[1] == [0, 0, 0, 0, 1, 0]
    assert gradients(mg.clip, 0.0, 2.0, 1.0) == [0, 0, 1], "crossed limits: the upper one counts"
    assert mg.clip(mg.ones(2), np.array([2.0, 0.0], np.float32), 3).tolist() == [2, 1]


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "logsumexp", "var"])
@pytest.mark.parametrize("axis", [0, -1, (), None])
@pytest.mark.parametrize("keepdims", [False, True])
def test_a_number_is_reduced_over_no_axes(name: str, axis: Any, keepdims: bool) -> None:
    function = lambda x: getattr(mg, name)(x, axis=axis, keepdims=keepdims)  # noqa: E731
    y = function(Tensor(np.array(3.0)))
    assert y.shape == () and y.item() == (0 if name == "var" else 3)
    assert gradients(function, 3.0, seed=5.0) == [0 if name == "var" else 5]


def test_a_number_has_no_other_axis() -> None:
    for axis in (1, -2, (0, 0)):
        with pytest.raises(mg.ShapeError):
            mg.sum(Tensor(3.0), axis=axis)
    assert mg.softmax(Tensor(3.0)).item() == 1 and mg.log_softmax(Tensor(3.0)).item() == 0
    assert gradients(mg.softmax, 3.0) == gradients(mg.log_softmax, 3.0) == [0]
    assert mg.argmax(Tensor(3.0), 0, keepdims=True).item() == 0


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_the_gradients_of_a_power_at_zero() -> None:
    x, y = [0.0, 0.0, 0.0, 0.0, 2.0], [-1.0, 0.0, 1.0, 2.0, 0.0]
    dx, dy = gradients(mg.power, x, y)
    assert dx == [-inf, 0, 1, 0, 0]
    assert dy == [-inf, 0, 0, 0, np.log(2)]
    assert gradients(lambda y: 0.0**y, y)[0] == [-inf, 0, 0, 0, 0]
    assert gradients(lambda x: x**0, [0.0, nan, inf]) == [[0, 0, 0]]
    assert same(gradients(lambda x: x**-1, [0.0, 2.0]), [[-inf, -0.25]])
    assert gradients(lambda x: x**1, [0.0]) == [[1]]


def test_nothing_at_all() -> None:
    for shape, axis in (((0, 3), 0), ((3, 0), 1), ((3, 0), -1), ((0, 0), 0), ((2, 0, 3), 1)):
        x = np.zeros(shape)
        for function in (mg.softmax, mg.log_softmax):
            assert function(x, axis).shape == shape
            assert np.shape(gradients(lambda x, f=function, a=axis: f(x, a), x)[0])[:1] == shape[:1]
        total = mg.logsumexp(x, axis)
        assert total.shape == np.sum(x, axis).shape and (total.numpy() == -inf).all()
        assert gradients(lambda x, a=axis: mg.logsumexp(x, a), x) == [x.tolist()]
        assert gradients(lambda x, a=axis: mg.sum(x, a), x) == [x.tolist()]
    assert mg.softmax(np.zeros((0, 3)), 1).shape == (0, 3)
    for function in (mg.max, mg.min, mg.argmax, mg.argmin):
        with pytest.raises(mg.ShapeError, match=r"\(0, 3\)"):
            function(np.zeros((0, 3)), 0)
        assert function(np.zeros((0, 3)), 1).shape == (0,)


def test_layers_and_losses_take_an_empty_batch() -> None:
    rng = mg.Generator(0)
    layers = [
        mg.nn.Linear(3, 3, rng=rng),
        mg.nn.LayerNorm(3),
        mg.nn.RMSNorm(3),
        mg.nn.GELU(),
        mg.nn.Dropout(0.5, rng=rng),
    ]
    for textbook in (False, True):
        for layer in layers:
            x = Tensor(np.zeros((0, 3), np.float32), requires_grad=True)
            setting = mg.textbook() if textbook else mg.enable_grad()
            with setting:
                y = layer(x)
                y.sum().backward()
            assert y.shape == (0, 3) and x.grad is not None and x.grad.shape == (0, 3)
            assert all((p.grad.numpy() == 0).all() for p in layer.parameters())
            layer.zero_grad()
    logits, targets = mg.zeros(0, 5), np.zeros(0, np.int64)
    assert F.cross_entropy(logits, targets, reduction="sum").item() == 0
    assert F.cross_entropy(logits, targets, reduction="none").shape == (0,)
    with pytest.raises(ValueError, match="no target counts"):
        F.cross_entropy(logits, targets)


def test_other_special_points() -> None:
    assert gradients(mg.abs, [0.0, -0.0, inf]) == [[0, 0, 1]]
    assert mg.argmax(np.array([1.0, nan, inf])).item() == 1
    assert mg.argmin(np.array([1.0, nan, -inf])).item() == 1
    chosen = gradients(lambda x, y: mg.where([True, False], x, y), [1.0, nan], [nan, 2.0])
    assert chosen == [[1, 0], [0, 1]], "the branch that was not taken gets exactly 0"
    one = Tensor([2.0], requires_grad=True)
    for spread in (mg.var(one, ddof=1), mg.std(one, correction=2)):
        assert np.isnan(spread.item()) and np.isnan(mg.grad(spread, one).item())
    joined = mg.concatenate([np.eye(2), np.zeros(1), 3 * np.ones((1, 1))], axis=None)
    assert joined.tolist() == [1, 0, 0, 1, 0, 3]
    assert gradients(lambda x: mg.concatenate([x, x], axis=None), np.eye(2)) == [[[2, 2], [2, 2]]]


def test_eye() -> None:
    for arguments in ((2,), (2, 3), (3, 2), (0, 2)):
        assert np.array_equal(mg.eye(*arguments).numpy(), np.eye(*arguments))
    assert np.array_equal(mg.eye(3, 4, k=-1).numpy(), np.eye(3, 4, -1))
    assert mg.eye(3, "float64").dtype == mg.eye(3, dtype=float).dtype == np.float64
    with pytest.raises(TypeError, match="number of columns"):
        mg.eye(3, 2.5, "float64")


@pytest.mark.parametrize(
    "row", [[inf, 1.0, 2.0], [inf, inf, 0.0], [inf, -inf, 0.0], [nan, 1.0, 2.0]]
)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("textbook", [False, True])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_soft_max_with_infinity_is_not_partly_a_number(
    row: list[float], name: str, textbook: bool
) -> None:
    """With e^inf in the sum, every probability is NaN, as in PyTorch."""
    with mg.textbook() if textbook else mg.enable_grad():
        x = Tensor(np.array([row, [0.0, 0.0, 0.0]]), requires_grad=True)
        y = getattr(mg, name)(x)
        y.backward(Tensor(np.array([[1.0, 2.0, 4.0]] * 2)))
    assert np.isnan(y.detach().numpy()).tolist() == [[True] * 3, [False] * 3]
    assert x.grad is not None
    assert np.isnan(x.grad.numpy()).tolist() == [[True] * 3, [False] * 3]
