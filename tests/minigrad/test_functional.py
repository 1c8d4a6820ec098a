"""Functions that return derivatives, compared with formulas and with finite differences."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, functional, nn


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def bumpy(x: Tensor, y: Tensor) -> Tensor:
    """(3,), (2, 3) -> (2, 3): a function whose derivatives are all different."""
    return mg.sin(x) * y + mg.exp(x * y) / (1 + x * x)


def differences(function: Any, x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The Jacobian of a function of arrays, by central differences."""
    columns = []
    for i in range(x.size):
        shift = np.zeros(x.size)
        shift[i] = step
        shift = shift.reshape(x.shape)
        columns.append((function(x + shift) - function(x - shift)) / (2 * step))
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *x.shape)


def test_gradient() -> None:
    x = array(3)
    gradient = functional.grad(lambda x: (x**3).sum())(Tensor(x))
    assert np.allclose(gradient.numpy(), 3 * x**2, rtol=1e-12)
    assert not gradient.requires_grad


def test_gradient_of_several_arguments_and_keywords() -> None:
    x, y = array(3), array(3, seed=1)

    def f(x: Tensor, y: Tensor, *, power: int) -> Tensor:
        return (x**power * y).sum()

    value, (dx, dy) = functional.value_and_grad(f, (0, 1))(x, y, power=2)
    assert np.allclose(value.item(), (x**2 * y).sum())
    assert np.allclose(dx.numpy(), 2 * x * y)
    assert np.allclose(dy.numpy(), x**2)
    assert np.allclose(functional.grad(f, -1)(x, y, power=2).numpy(), x**2)


def test_nothing_is_left_behind() -> None:
    x = Tensor(array(3), requires_grad=True)
    with mg.no_grad():
        functional.grad(lambda x: (x * x).sum())(x)
    assert x.grad is None


def test_nested_gradients() -> None:
    f: Any = mg.sin
    for expected in (np.sin, np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x)):
        assert np.isclose(f(Tensor(np.float64(0.7), dtype="float64")).item(), expected(0.7))
        f = functional.grad(f)


def test_an_argument_that_does_not_count_has_a_gradient_of_zeros() -> None:
    dx, dy = functional.grad(lambda x, y: (x * x).sum(), (0, 1))(array(2), array(3))
    assert dx.shape == (2,)
    assert np.array_equal(dy.numpy(), np.zeros(3))
    assert np.array_equal(functional.grad(lambda x: Tensor(1.0))(array(2)).numpy(), np.zeros(2))


def test_the_argument_is_apart_from_the_same_tensor_in_a_closure() -> None:
    """f(x) = x·c at c = x has the derivative c, not 2x."""
    c = Tensor(np.float64(3.0), dtype="float64", requires_grad=True)
    assert functional.grad(lambda x: x * c)(c).item() == 3.0


def test_a_gradient_penalty_reaches_the_parameters() -> None:
    layer = nn.Linear(3, 1, rng=mg.Generator(0), dtype=np.float64)
    x = array(4, 3)
    gradient = functional.grad(lambda x: mg.tanh(layer(x)).sum(), create_graph=True)(x)
    (gradient * gradient).sum().backward()

    def penalty(w: np.ndarray) -> np.ndarray:
        slope = 1 - np.tanh(x @ w.T + layer.bias.numpy()) ** 2
        return ((slope * w) ** 2).sum()

    assert np.allclose(layer.weight.grad.numpy(), differences(penalty, layer.weight.numpy()))


def test_jacobian() -> None:
    x, y = array(3), array(2, 3, seed=1)
    by_x, by_y = functional.jacobian(bumpy, (0, 1))(x, y)
    assert by_x.shape == (2, 3, 3)
    assert by_y.shape == (2, 3, 2, 3)
    f = lambda x, y: bumpy(Tensor(x), Tensor(y)).numpy()  # noqa: E731
    assert np.allclose(by_x.numpy(), differences(lambda x: f(x, y), x), atol=1e-8)
    assert np.allclose(by_y.numpy(), differences(lambda y: f(x, y), y), atol=1e-8)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0)])
def test_jacobian_of_unusual_shapes(shape: tuple[int, ...]) -> None:
    result = functional.jacobian(lambda x: 2 * x)(np.ones(shape))
    assert result.shape == shape + shape
    assert np.array_equal(result.numpy().reshape(-1), 2 * np.eye(int(np.prod(shape))).reshape(-1))


def test_hessian_of_a_quadratic_form() -> None:
    a = array(4, 4)
    hessian = functional.hessian(lambda x: x @ mg.asarray(a) @ x)(array(4, seed=1))
    assert np.allclose(hessian.numpy(), a + a.T, rtol=1e-12)


def test_hessian_against_differences() -> None:
    x, y = array(3), array(2, 3, seed=1)
    gradient = functional.grad(lambda x: bumpy(x, Tensor(y)).sum())
    hessian = functional.hessian(lambda x, y: bumpy(x, y).sum())(x, y)
    assert np.allclose(hessian.numpy(), differences(lambda x: gradient(x).numpy(), x), atol=1e-8)


def test_vjp_is_the_jacobian_from_the_left() -> None:
    x, y, v = array(3), array(2, 3, seed=1), array(2, 3, seed=2)
    value, pullback = functional.vjp(bumpy, x, y)
    assert np.array_equal(value.numpy(), bumpy(Tensor(x), Tensor(y)).numpy())
    by_x, by_y = functional.jacobian(bumpy, (0, 1))(x, y)
    for _ in range(2):  # a second call works too
        dx, dy = pullback(v)
        assert np.allclose(dx.numpy(), np.tensordot(v, by_x.numpy(), 2))
        assert np.allclose(dy.numpy(), np.tensordot(v, by_y.numpy(), 2))


def test_jvp_is_the_jacobian_from_the_right() -> None:
    x, y, s, t = array(3), array(2, 3, seed=1), array(3, seed=2), array(2, 3, seed=3)
    value, derivative = functional.jvp(bumpy, (x, y), (s, t))
    by_x, by_y = functional.jacobian(bumpy, (0, 1))(x, y)
    expected = by_x.numpy() @ s + np.tensordot(by_y.numpy(), t, 2)
    assert np.array_equal(value.numpy(), bumpy(Tensor(x), Tensor(y)).numpy())
    assert np.allclose(derivative.numpy(), expected)


def test_hvp_is_the_hessian_times_the_direction() -> None:
    x, t = array(3), array(3, seed=2)
    f = lambda x: bumpy(x, Tensor(array(2, 3, seed=1))).sum()  # noqa: E731
    value, (product,) = functional.hvp(f, (x,), (t,))
    assert np.isclose(value.item(), f(Tensor(x)).item())
    assert np.allclose(product.numpy(), functional.hessian(f)(x).numpy() @ t)


def test_products_can_be_differentiated_again() -> None:
    """The third derivative of x⁴ in one direction is 24x t²."""
    x, t = np.float64(1.5), np.float64(0.5)

    def second(x: Tensor) -> Tensor:
        return functional.hvp(lambda x: x**4, (x,), (t,))[1][0]

    assert np.isclose(functional.grad(second)(x).item(), 24 * x * t)

    def first(x: Tensor) -> Tensor:
        return functional.jvp(lambda x: x**3, (x,), (t,))[1]

    assert np.isclose(functional.grad(first)(x).item(), 6 * x * t)


def test_a_jvp_through_an_op_that_the_value_does_not_depend_on() -> None:
    value, derivative = functional.jvp(lambda x: Tensor([1.0, 2.0]), (array(3),), (array(3),))
    assert np.array_equal(value.numpy(), [1, 2])
    assert np.array_equal(derivative.numpy(), [0, 0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: functional.grad(lambda x: x)(np.ones(2)),
            mg.ShapeError,
            r"value has shape \(2,\). Reduce it to one number, for example with .sum\(\), or use",
        ),
        (
            lambda: functional.grad(lambda x: x, 1)(np.ones(2)),
            TypeError,
            "argument 1 is to be differentiated by, but the function was called with 1 positional",
        ),
        (
            lambda: functional.grad(lambda x: 1.0)(np.ones(2)),
            TypeError,
            "functional.grad: the function gave a float, not a Tensor",
        ),
        (
            lambda: functional.vjp(lambda x: x, np.ones(2))[1](np.ones(3)),
            mg.ShapeError,
            r"functional.vjp: v has shape \(3,\), the value \(2,\)",
        ),
        (
            lambda: functional.jvp(lambda x: x, (np.ones(2),), (np.ones(3),)),
            mg.ShapeError,
            r"functional.jvp: primals of shapes \[\(2,\)\], tangents of \[\(3,\)\]",
        ),
        (
            lambda: functional.jvp(lambda x: x, np.ones(2), np.ones(2)),
            TypeError,
            "functional.jvp: primals and tangents are tuples, also of one element",
        ),
        (
            lambda: functional.hvp(lambda x: x, (np.ones(2),), (np.ones(2),)),
            mg.ShapeError,
            r"functional.hvp: the function's value has shape \(2,\)",
        ),
        (
            lambda: functional.hessian(lambda x: x, (0, 1)),  # type: ignore[arg-type]
            TypeError,
            "functional.hessian differentiates by one argument: argnums is an int",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
