"""detect_nan reports where the first NaN or Inf came from."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import NonFiniteError, Tensor, nn


class Inner(nn.Module):
    def __init__(self, values: list[float]) -> None:
        self.scale = nn.Parameter(values)

    def forward(self, x: Tensor) -> Tensor:
        return mg.log(x * self.scale)


class Outer(nn.Module):
    def __init__(self) -> None:
        self.layers = nn.Sequential(nn.ReLU(), Inner([1.0, -1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.fixture(autouse=True)
def numpy_does_not_warn():  # type: ignore[no-untyped-def]
    with np.errstate(all="ignore"):
        yield


def test_forward_names_op_shapes_value_and_module() -> None:
    with mg.detect_nan(), pytest.raises(NonFiniteError) as error:
        Outer()(mg.ones((3, 2)))
    message = str(error.value)
    assert "forward of log of shapes (3, 2)" in message
    assert "in module 'layers.1'" in message
    assert "gave 3 non-finite value(s) of 6, the first is nan at index (0, 1)" in message
    assert (error.value.op, error.value.phase, error.value.module) == ("log", "forward", "layers.1")


def test_infinity_counts() -> None:
    with (
        mg.detect_nan(),
        pytest.raises(NonFiniteError, match=r"divide.*first is inf at index \(\)"),
    ):
        Tensor(1.0) / Tensor(0.0)


def test_backward_names_the_op_whose_gradient_it_is() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return mg.sqrt(x) * 2

    class Model(nn.Module):
        def __init__(self) -> None:
            self.root = Root()

        def forward(self, x: Tensor) -> Tensor:
            return (self.root(x) + x).sum()

    x = Tensor(np.array([[4.0, 0.0]]), requires_grad=True)
    with mg.detect_nan():
        loss = Model()(x)
        with pytest.raises(NonFiniteError) as error:
            loss.backward()
    assert "backward of sqrt of shapes (1, 2) in module 'root' gave 1 non-finite" in str(
        error.value
    )
    assert (error.value.op, error.value.phase, error.value.module) == ("sqrt", "backward", "root")


def test_second_derivatives_are_watched_too() -> None:
    x = Tensor(np.array([0.0]), requires_grad=True)
    y = (x**1.5).sum()
    with mg.detect_nan():
        first = mg.grad(y, x, create_graph=True)
        with pytest.raises(NonFiniteError, match="backward of power_scalar"):
            mg.grad(first.sum(), x)


def test_outside_of_modules() -> None:
    with mg.detect_nan(), pytest.raises(NonFiniteError) as error:
        mg.log(Tensor([-1.0]))
    assert error.value.module == "" and "in module" not in str(error.value)


def test_the_root_is_named_by_its_class() -> None:
    with mg.detect_nan(), pytest.raises(NonFiniteError, match="in module 'Inner'"):
        Inner([-1.0])(mg.ones(1))


def test_kernels_are_watched() -> None:
    layer = nn.Linear(2, 2, rng=mg.Generator(0))
    layer.weight.assign(np.full((2, 2), np.nan))
    with mg.detect_nan(), pytest.raises(NonFiniteError, match="forward of linear of shapes"):
        layer(mg.ones((1, 2)))


def test_a_clean_pass_is_as_without() -> None:
    model, x = nn.Linear(2, 2, rng=mg.Generator(0)), mg.ones((1, 2))
    plain = model(x).numpy()
    with mg.detect_nan():
        y = model(x)
        y.sum().backward()
    assert np.array_equal(y.numpy(), plain)


def test_nothing_is_checked_outside() -> None:
    assert np.isnan(mg.log(Tensor([-1.0])).item())
    with pytest.raises(NonFiniteError), mg.detect_nan():
        mg.log(Tensor([-1.0]))
    assert np.isnan(mg.log(Tensor([-1.0])).item()), "also after an error"


def test_decorator() -> None:
    @mg.detect_nan()
    def function() -> Tensor:
        return mg.log(Tensor([-1.0]))

    with pytest.raises(NonFiniteError):
        function()
