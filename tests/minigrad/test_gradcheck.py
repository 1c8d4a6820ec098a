"""gradcheck finds wrong gradients, and says where they are."""

import math
import re
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import GradientError, Tensor, gradcheck, gradcheck_module, nn
from tests.minigrad.compare import float64


def slightly_wrong(x: Tensor, element: Any, error: float) -> Tensor:
    """Σ x² with an error of `error` in one element of its gradient, made by a constant."""
    wrong = np.zeros(x.shape)
    wrong[element] = error
    return (x * x).sum() + (x - x.detach()) @ Tensor(wrong)


def test_a_right_gradient_passes_and_the_error_is_small(rng: np.random.Generator) -> None:
    inputs = float64(rng.standard_normal((3, 4)), rng.standard_normal(4))
    assert gradcheck(lambda x, y: mg.tanh(x * y), inputs) < 0.1


def test_inputs_are_left_as_they_were(rng: np.random.Generator) -> None:
    small, large = float64(rng.standard_normal(5), rng.standard_normal(1000))
    before = small.tolist(), large.tolist()
    gradcheck(lambda x, y: mg.exp(x).sum() * mg.sin(y), [small, large])
    assert (small.tolist(), large.tolist()) == before
    assert small.grad is None and large.grad is None


def test_a_wrong_gradient_is_named_with_its_worst_element_and_both_values() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return (x * 3).sum() + slightly_wrong(y, 2, 0.5)

    x, y = float64([1.0, 2.0], [1.0, 2.0, 3.0, 4.0])
    with pytest.raises(GradientError) as error:
        gradcheck(function, [x, y], seed=1)
    upstream = np.random.default_rng(1).standard_normal()
    message = str(error.value)
    assert "input 1 of shape (4,): the worst element is (2,):" in message
    analytic, numeric = re.findall(r"(?:analytic|numeric) (\S+?)[, ]", message)
    assert math.isclose(float(analytic), 6.5 * upstream, rel_tol=1e-8)
    assert math.isclose(float(numeric), 6 * upstream, rel_tol=1e-8)
    assert "(1 of 4 elements are off)" in message


def test_a_small_error_is_enough() -> None:
    (x,) = float64(np.ones(5))
    with pytest.raises(GradientError):
        gradcheck(lambda x: slightly_wrong(x, 0, 1e-4), [x])


def test_a_missing_dependency_is_seen() -> None:
    x, y = float64([1.0, 2.0], [3.0, 4.0])
    with pytest.raises(GradientError, match=r"input 0 of shape \(2,\).*analytic 0, numeric"):
        gradcheck(lambda x, y: x.detach() * y, [x, y])
    with pytest.raises(GradientError, match="no output depends on an input"):
        gradcheck(lambda x: x.detach() * 2, [x])


def test_one_wrong_element_among_10000_is_found(rng: np.random.Generator) -> None:
    (x,) = float64(rng.standard_normal((100, 100)))

    def function(x: Tensor) -> Tensor:
        return slightly_wrong(x.reshape(-1), 4321, 1.0)

    with pytest.raises(
        GradientError, match=r"of shape \(100, 100\): the worst element is \(43, 21\)"
    ):
        gradcheck(function, [x])
    assert gradcheck(lambda x: (x * x).sum(), [x]) <= 1


def test_a_nan_is_an_error() -> None:
    x, many = float64([1.0, 2.0], np.ones(1000))
    for inputs in ([x], [many]):
        with pytest.raises(GradientError, match="nan"), np.errstate(invalid="ignore"):
            gradcheck(lambda x: mg.sqrt(-x), inputs)


def test_a_constant_upstream_would_not_have_seen_this(rng: np.random.Generator) -> None:
    """A softmax sums to 1, so a constant upstream gives a gradient of 0, whatever is missing."""

    def halved(x: Tensor) -> Tensor:
        y = mg.softmax(x)
        return y * 0.5 + y.detach() * 0.5

    (x,) = float64(rng.standard_normal((2, 3)))
    assert np.abs(mg.grad(halved(x).sum(), x).numpy()).max() < 1e-15
    with pytest.raises(GradientError):
        gradcheck(halved, [x])


def test_several_outputs(rng: np.random.Generator) -> None:
    inputs = float64(rng.standard_normal((2, 4)))
    gradcheck(lambda x: mg.split(x, 2, axis=1), inputs)
    gradcheck(lambda x: (x * 2, x.detach() * 0, mg.exp(x)), inputs)
    with pytest.raises(GradientError):
        gradcheck(lambda x: (x * 2, x.detach()), inputs)


def test_inputs_that_are_constants_are_not_checked() -> None:
    (x,) = float64([1.0, 2.0])
    gradcheck(lambda x, ids: x[ids] * 2, [x, Tensor([1, 0, 1])])


def test_what_cannot_be_checked() -> None:
    with pytest.raises(TypeError, match="input 1 is float32; central differences need float64"):
        gradcheck(lambda x, y: x * y, [*float64([1.0]), mg.ones(1, requires_grad=True)])
    with pytest.raises(ValueError, match="no input has requires_grad=True"):
        gradcheck(lambda x: x, [mg.ones(1)])


def model() -> nn.Sequential:
    rng = mg.Generator(0)
    layers = nn.Sequential(nn.Linear(3, 4, rng=rng), nn.Tanh(), nn.Linear(4, 2, rng=rng))
    return layers.astype("float64")  # type: ignore[return-value]


def test_a_module(rng: np.random.Generator) -> None:
    x = Tensor(rng.standard_normal((2, 3)), requires_grad=True)
    assert gradcheck_module(model(), [x]) <= 1
    assert gradcheck_module(model(), [x], lambda y: (y * y).mean()) <= 1


def test_the_worst_parameter_is_named(rng: np.random.Generator) -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            self.layers = model()

        def forward(self, x: Tensor) -> Tensor:
            first, activation, last = self.layers
            y = activation(first(x))
            off = (last.weight - last.weight.detach()).sum() * 5  # type: ignore[attr-defined]
            return last(y) + off + (first.bias - first.bias.detach()).sum() * 1e-3

    with pytest.raises(GradientError, match=r"layers\.2\.weight of shape \(2, 4\)"):
        gradcheck_module(Wrong(), [Tensor(rng.standard_normal((2, 3)))])


def test_a_module_in_float32_is_refused_by_name() -> None:
    layer = nn.Linear(2, 2, rng=mg.Generator(0))
    with pytest.raises(TypeError, match=r"weight.*float32"):
        gradcheck_module(layer, [mg.ones((1, 2))])


def test_inputs_of_a_module_are_named(rng: np.random.Generator) -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            self.scale = nn.Parameter(np.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return x.detach() * self.scale

    x = Tensor(rng.standard_normal(2), requires_grad=True)
    with pytest.raises(GradientError, match="input 0 of shape"):
        gradcheck_module(Cut(), [x])


def test_outputs_of_integers_and_booleans_are_left_out() -> None:
    x = Tensor(np.array([1.0, 3.0, 2.0]), requires_grad=True)
    assert gradcheck(lambda x: (x * x, mg.argmax(x), x > 1.5), [x]) <= 1


@pytest.mark.parametrize("size", [3, 500])
def test_an_interrupted_check_leaves_its_inputs_as_they_were(size: int) -> None:
    x = Tensor(np.linspace(0, 1, size), requires_grad=True)
    before, calls = x.numpy().copy(), []

    def function(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return x * x

    with pytest.raises(KeyboardInterrupt):
        gradcheck(function, [x])
    assert len(calls) == 3 and np.array_equal(x.numpy(), before)
