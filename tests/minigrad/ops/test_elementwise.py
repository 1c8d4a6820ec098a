"""Element-wise ops: values, dtypes, corner cases. Gradients are in test_gradients.py."""

import math
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor, grad
from tests.minigrad.compare import assert_close, assert_same_as_torch, float64


@pytest.mark.parametrize(
    "name", ["negative", "exp", "sin", "cos", "tanh", "abs", "sign", "log", "sqrt"]
)
def test_unary_functions_are_numpys(name: str, rng: np.random.Generator) -> None:
    x = rng.uniform(0.1, 3, (4, 5))
    assert np.array_equal(getattr(mg, name)(x).numpy(), getattr(np, name)(x))
    assert getattr(mg, name)(x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "sin", "cos", "tanh", "erf", "sigmoid"])
def test_integers_become_float32_where_the_result_is_no_integer(name: str) -> None:
    assert getattr(mg, name)(Tensor([1, 2])).dtype == np.float32
    assert mg.gelu(Tensor([1, 2])).dtype == mg.silu(Tensor([1, 2])).dtype == np.float32


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "maximum", "minimum"])
def test_binary_functions_are_numpys(name: str, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((3, 1, 4)), rng.standard_normal((2, 1))
    assert np.array_equal(getattr(mg, name)(x, y).numpy(), getattr(np, name)(x, y))
    ints, others = np.array([1, -2, 3]), np.array([2, 2, -1])
    result = getattr(mg, name)(Tensor(ints), Tensor(others))
    assert np.array_equal(result.numpy(), getattr(np, name)(ints, others))
    assert result.dtype == np.int64


def test_operators_take_numbers_and_arrays_on_both_sides() -> None:
    x, a = Tensor([1.0, 4.0]), np.array([2.0, 2.0], np.float32)
    assert (2 - x).tolist() == [1, -2] and (x - 2).tolist() == [-1, 2]
    assert (8 / x).tolist() == [8, 2] and (x / 2).tolist() == [0.5, 2]
    assert (2**x).tolist() == [2, 16] and (x**2).tolist() == [1, 16]
    assert (a - x).tolist() == [1, -2] and isinstance(a - x, Tensor)
    assert (a + x).tolist() == (x + a).tolist() == [3, 6]
    assert (a * x).tolist() == (np.float64(2) * x).tolist() == [2, 8]
    assert (a @ x).item() == 10 and isinstance(a @ x, Tensor)
    assert (a**x).tolist() == [2, 16] and (a / x).tolist() == [2, 0.5]
    assert (-x).tolist() == [-1, -4] and abs(-x).tolist() == [1, 4] and (1 + x).tolist() == [2, 5]


def test_a_python_number_keeps_the_dtype_of_the_tensor() -> None:
    for dtype in (np.float32, np.float64):
        x = Tensor(np.ones(3, dtype))
        for y in (x + 1, x * 0.5, 1 - x, x / 3, x**2, x**0.5, 2**x, np.float64(2) * x, x + True):
            assert y.dtype == dtype
        for y in (mg.maximum(x, 0.5), mg.where(x > 0, x, 0.5), mg.clip(x, 0, 0.5), mg.power(x, x)):
            assert y.dtype == dtype
    number = Tensor(np.array(2.0, np.float32))  # an array without axes is not a Python number
    assert (number * 0.5).dtype == (number**2).dtype == mg.sqrt(number).dtype == np.float32


def test_integers_never_widen_floats() -> None:
    ints = Tensor([1, 2])
    assert (ints + 1).dtype == (ints * 2).dtype == (ints**2).dtype == np.int64
    assert (ints + 0.5).dtype == (ints * 0.5).dtype == np.float32, "a Python float is float32"
    assert (ints**0.5).dtype == (2.5**ints).dtype == np.float32
    assert (ints + Tensor(np.ones(2, np.float32))).dtype == np.float32
    assert (ints.astype("int8") + Tensor(np.ones(2, np.float32))).dtype == np.float32
    assert (Tensor([True, False]) + 1).dtype == np.int64
    assert (Tensor(np.ones(2, np.float32)) + np.ones(2)).dtype == np.float64


def test_integers_are_divided_as_float32() -> None:
    quotient = Tensor([1, 2, -3]) / Tensor([2, 2, 2])
    assert quotient.dtype == np.float32 and quotient.tolist() == [0.5, 1, -1.5]
    assert (1 / Tensor([2, 4])).dtype == (Tensor([2, 4]) / 2).dtype == np.float32
    assert (Tensor([1, 2]) / Tensor(np.array([2.0, 2.0]))).dtype == np.float64


def test_gradients_have_the_dtype_of_their_tensor() -> None:
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y = Tensor(np.ones(3), requires_grad=True)
    z = x * y + Tensor(np.arange(3)) * x
    assert z.dtype == np.float64
    z.sum().backward()
    assert x.grad is not None and x.grad.dtype == np.float32
    assert y.grad is not None and y.grad.dtype == np.float64


def test_erf_is_right_to_the_last_place() -> None:
    x = np.concatenate([np.linspace(-7, 7, 2001), [0.0, 0.5, -0.5, 1e-300, 1e-9, 40, np.inf]])
    ours = mg.erf(x).numpy()
    true = np.array([math.erf(value) for value in x])
    assert np.abs(ours - true).max() <= 4.5e-16
    near = np.abs(x) < 0.5
    assert (np.abs(ours - true)[near] <= 4e-16 * np.abs(true[near])).all(), "relative, near 0"


def test_activations_are_torchs(rng: np.random.Generator) -> None:
    functional = pytest.importorskip("torch", reason="PyTorch is not there").nn.functional
    x = np.concatenate([rng.standard_normal(50) * 3, [0.0, -20.0, 20.0]])
    assert_same_as_torch(mg.gelu, functional.gelu, x)
    assert_same_as_torch(
        lambda x: mg.gelu(x, "tanh"), lambda x: functional.gelu(x, approximate="tanh"), x
    )
    assert_same_as_torch(mg.silu, functional.silu, x)
    assert_same_as_torch(mg.sigmoid, lambda x: x.sigmoid(), x)
    assert_same_as_torch(mg.relu, functional.relu, x)
    assert_same_as_torch(mg.tanh, lambda x: x.tanh(), x)
    assert_same_as_torch(mg.erf, lambda x: x.erf(), x)


def test_sigmoid_overflows_nowhere() -> None:
    x = Tensor(np.array([-1e4, 0.0, 1e4], np.float32), requires_grad=True)
    y = mg.sigmoid(x)
    assert y.tolist() == [0, 0.5, 1]
    assert grad(y.sum(), x).tolist() == [0, 0.25, 0]
    assert mg.silu(x).tolist() == [0, 0, 1e4]


def test_gelu_names_its_two_forms() -> None:
    with pytest.raises(ValueError, match=r'"none" or "tanh", not \'fast\''):
        mg.gelu(Tensor([1.0]), "fast")


def test_power_corner_cases() -> None:
    (x,) = float64([0.0, 0.0, 2.0])
    (y,) = float64([2.0, 0.0, 0.0])
    z = x**y
    assert z.tolist() == [0, 1, 1]
    dx, dy = grad(z.sum(), [x, y])
    assert dx.tolist() == [0, 0, 0], "x² and x⁰ are flat at 0"
    assert_close(dy.numpy(), [0, 0, math.log(2)])
    (x,) = float64([-2.0, 0.0, 3.0])
    assert grad((x**2).sum(), x).tolist() == [-4, 0, 6]
    assert grad((x**1).sum(), x).tolist() == [1, 1, 1]
    assert grad((x**0).sum(), x).tolist() == [0, 0, 0]
    assert grad((x**3.0).sum(), x).tolist() == [12, 0, 27]


def test_power_is_torchs(rng: np.random.Generator) -> None:
    pytest.importorskip("torch", reason="PyTorch is not there")
    x, y = rng.uniform(0.2, 3, (3, 4)), rng.standard_normal((3, 1))
    y[0] = 0
    assert_same_as_torch(mg.power, lambda x, y: x**y, x, y)
    assert_same_as_torch(lambda x: x**-1.5, lambda x: x**-1.5, x)
    assert_same_as_torch(lambda y: 3**y, lambda y: 3**y, y)


def test_ties_share_the_gradient_as_in_torch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    x, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])
    assert_same_as_torch(mg.maximum, torch.maximum, x, y)
    assert_same_as_torch(mg.minimum, torch.minimum, x, y)
    (t,) = float64([1.0, 2.0])
    assert grad(mg.maximum(t, t).sum(), t).tolist() == [1, 1]


def test_clip() -> None:
    (x,) = float64([-2.0, -1.0, 0.5, 1.0, 3.0])
    y = mg.clip(x, -1, 1)
    assert y.tolist() == [-1, -1, 0.5, 1, 1]
    assert grad(y.sum(), x).tolist() == [0, 1, 1, 1, 0], "the limits themselves are inside"
    assert mg.clip(x, min=0).tolist() == [0, 0, 0.5, 1, 3]
    assert mg.clip(x, max=0).tolist() == [-2, -1, 0, 0, 0]
    assert mg.clip(x) is x


def test_clip_with_tensors_moves_the_limits_too() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    x, low, high = np.array([-2.0, 0.5, 3.0]), np.array([-1.0]), np.array([2.0, 2.0, 2.5])
    assert_same_as_torch(mg.clip, torch.clamp, x, low, high)
    assert_same_as_torch(
        lambda x, high: mg.clip(x, None, high), lambda x, h: x.clamp(max=h), x, high
    )
    assert_same_as_torch(
        lambda x, low: mg.clip(x, low, 1.0), lambda x, low: x.clamp(low).clamp(max=1), x, low
    )


def test_where_takes_numbers_and_broadcasts() -> None:
    (x,) = float64([[1.0], [2.0]])
    y = mg.where(np.array([True, False, True]), x, 0)
    assert y.tolist() == [[1, 0, 1], [2, 0, 2]]
    assert grad(y.sum(), x).tolist() == [[2], [2]]
    assert mg.where([True, False], 1.5, 2).tolist() == [1.5, 2]
    assert mg.where(x > 1, -1, x).tolist() == [[1], [-1]]


def test_where_lets_no_gradient_of_the_other_branch_through() -> None:
    """√x has an infinite gradient at 0, and ∞·0 is NaN. So the safe form computes √1 there."""
    (x,) = float64([0.0, 4.0])
    y = mg.where(x > 0, mg.sqrt(mg.where(x > 0, x, 1)), 0)
    assert grad(y.sum(), x).tolist() == [0, 0.25]


def test_astype() -> None:
    x = Tensor(np.array([1.5, -2.5], np.float32), requires_grad=True)
    y = x.astype("float64")
    assert y.dtype == np.float64 and x.astype(np.float32, copy=False) is x
    assert x.astype(np.float32) is not x
    gradient = grad((y * y).sum(), x)
    assert gradient.dtype == np.float32 and gradient.tolist() == [3, -5]
    ints = x.astype(int)
    assert ints.tolist() == [1, -2] and not ints.requires_grad, "integers carry no gradient"


def test_comparisons_are_numpys_and_carry_no_gradient() -> None:
    x, y = Tensor([1.0, 2.0, 3.0], requires_grad=True), np.array([3.0, 2.0, 1.0], np.float32)
    assert (x == y).tolist() == [False, True, False] and (x != y).tolist() == [True, False, True]
    assert (x < y).tolist() == [True, False, False] and (x <= 2).tolist() == [True, True, False]
    assert (x > y).tolist() == [False, False, True] and (x >= 2).tolist() == [False, True, True]
    assert (x < y).dtype == np.bool_ and not (x < y).requires_grad
    both = (x > 1) & (x < 3)
    assert both.tolist() == [False, True, False]
    assert (~both).tolist() == [True, False, True]
    assert ((x < 2) | (x > 2)).tolist() == [True, False, True]
    assert mg.logical_and(Tensor([2, 0]), Tensor([1, 1])).tolist() == [True, False]
    assert mg.isfinite(Tensor([1.0, math.inf, math.nan])).tolist() == [True, False, False]


@pytest.mark.parametrize("use", [lambda x: x & 1, lambda x: x | 1, lambda x: ~x])
def test_bitwise_operators_are_for_integers_and_booleans(use: Any) -> None:
    with pytest.raises(TypeError, match=r"integers or booleans.*logical_"):
        use(Tensor([2.0, 4.0]))
    assert use(Tensor([2, 4])).tolist() == use(np.array([2, 4])).tolist()


@pytest.mark.parametrize(
    "name",
    ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "equal", "less"],
)
def test_shapes_that_do_not_broadcast(name: str) -> None:
    with pytest.raises(ShapeError, match=rf"{name} of shapes \(2, 3\) and \(4,\)"):
        getattr(mg, name)(mg.ones((2, 3)), mg.ones(4))


def test_stop_gradient() -> None:
    (x,) = float64([3.0])
    assert grad((x * mg.stop_gradient(x)).sum(), x).tolist() == [3]
