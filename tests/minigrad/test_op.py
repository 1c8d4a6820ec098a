"""Ops of your own have all that the engine's own ops have."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor


class square(mg.Op):
    """y = x²;  dx = 2·dy·x"""

    def forward(xp: Any, x: Any) -> Any:
        return x * x, x

    def backward(xp: Any, dy: Any, x: Any, needs: Any) -> Any:
        return (2 * dy * x,)


class scaled_sum(mg.Op):
    """z = scale·(x + exp(y)), with an optional y: two inputs that broadcast, and a static."""

    @staticmethod
    def forward(xp: Any, x: Any, y: Any, *, scale: float) -> Any:
        e = None if y is None else xp.exp(y)
        return scale * (x if e is None else x + e), e

    @staticmethod
    def backward(xp: Any, dz: Any, e: Any, needs: Any, *, scale: float) -> Any:
        return scale * dz if needs[0] else None, scale * dz * e if needs[1] else None


class first_half(mg.Op):
    """A view of the first half of a vector."""

    view = exact = True

    def forward(xp: Any, x: Any) -> Any:
        return x[: len(x) // 2], x.shape

    def backward(xp: Any, dy: Any, shape: Any, needs: Any) -> Any:
        return (xp.concatenate([dy, xp.zeros(shape[0] - len(dy), dtype=dy.dtype)]),)


def leaf(*values: float, dtype: Any = np.float64) -> Tensor:
    return Tensor(np.array(values, dtype), requires_grad=True)


def test_value_and_derivatives_of_any_order() -> None:
    x = leaf(1.5, -2.0)
    y = square(x)
    assert y.tolist() == [2.25, 4.0]
    first = mg.grad((y * y).sum(), x, create_graph=True)  # x⁴
    second = mg.grad(first.sum(), x, create_graph=True)
    third = mg.grad(second.sum(), x)
    assert np.allclose(first.numpy(), 4 * np.array([1.5, -2.0]) ** 3)
    assert np.allclose(second.numpy(), 12 * np.array([1.5, -2.0]) ** 2)
    assert np.allclose(third.numpy(), 24 * np.array([1.5, -2.0]))


def test_gradients_are_checked_and_summed_over_broadcast_axes() -> None:
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((3, 1)), requires_grad=True)
    y = Tensor(rng.standard_normal((2, 1, 4)), requires_grad=True)
    mg.gradcheck(lambda x, y: scaled_sum(x, y, scale=0.7), [x, y])
    mg.gradcheck(lambda x: scaled_sum(x, None, scale=0.7), [x])


def test_a_wrong_gradient_is_found() -> None:
    class wrong(mg.Op):
        def forward(xp: Any, x: Any) -> Any:
            return x * x, x

        def backward(xp: Any, dy: Any, x: Any, needs: Any) -> Any:
            return (3 * dy * x,)

    with pytest.raises(mg.GradientError):
        mg.gradcheck(wrong, [leaf(1.0, 2.0)])


def test_arrays_and_numbers_are_taken_and_apply_is_the_same() -> None:
    assert square(np.array([3.0], np.float32)).tolist() == [9.0]
    assert mg.apply(square, Tensor([3.0])).tolist() == [9.0]


def test_float16_is_computed_in_float32_unless_the_op_is_exact() -> None:
    with np.errstate(over="ignore"):
        y = square(Tensor(np.array([300.0], np.float16)))
    assert y.dtype == np.float16 and np.isinf(y.numpy()).all()  # 90,000 is too large to be stored
    mean = mg.mean(square(Tensor(np.array([300.0], np.float32))))
    assert mean.item() == 90_000

    class looks(mg.Op):
        seen: Any = None

        def forward(xp: Any, x: Any) -> Any:
            looks.seen = x.dtype
            return x.copy(), None

        def backward(xp: Any, dy: Any, saved: Any, needs: Any) -> Any:
            return (dy,)

    looks(Tensor(np.zeros(2, np.float16)))
    assert looks.seen == np.float32
    looks.exact = True
    looks(Tensor(np.zeros(2, np.float16)))
    assert looks.seen == np.float16


def test_a_change_through_a_view_is_noticed() -> None:
    x = Tensor(np.arange(4.0), requires_grad=True)
    base = x * 1
    y = square(base)
    with mg.no_grad():
        part = first_half(base.detach())
        part += 1
    with pytest.raises(mg.InPlaceError, match="backward of 'square': its input 0"):
        y.sum().backward()


def test_messages_name_the_op() -> None:
    with pytest.raises(mg.ShapeError, match=r"scaled_sum of shapes \(2,\) and \(3,\) \(scale=2\)"):
        scaled_sum(leaf(1, 2), leaf(1, 2, 3), scale=2)
    with mg.detect_nan(), pytest.raises(mg.NonFiniteError, match="forward of square") as error:
        square(leaf(1.0, np.inf))
    assert error.value.op == "square"
    assert "made by 'square'" in repr(square(leaf(1.0)))
    assert repr(square) == "<op tests.minigrad.test_op.square>"


@pytest.mark.parametrize("missing", ["forward", "backward"])
def test_an_op_without_one_of_its_functions(missing: str) -> None:
    body = {"forward": lambda xp, x: (x, None), "backward": lambda xp, dy, saved, needs: (dy,)}
    del body[missing]
    with pytest.raises(TypeError, match=f"the op 'halved' has no {missing}; see minigrad.Op"):
        type(mg.Op)("halved", (mg.Op,), body)


def test_a_name_of_its_own() -> None:
    class square_(mg.Op):
        forward, backward = square.forward, square.backward

    class other(mg.Op):
        name = "the square"
        forward, backward = square.forward, square.backward

    assert square_.name == "square"
    assert other.name == "the square"


# Kernels


@pytest.fixture
def cube() -> type[mg.Op]:
    """y = x³. A new op for each test, so that tests do not share kernels."""

    class cube(mg.Op):
        def forward(xp: Any, x: Any) -> Any:
            return x * x * x, x

        def backward(xp: Any, dy: Any, x: Any, needs: Any) -> Any:
            return (3 * dy * x * x,)

    return cube


def right(op: type[mg.Op], calls: list[str] | None = None) -> Any:
    @mg.kernel(op, "cpu")
    class fast:
        def forward(x: Any) -> Any:
            if calls is not None:
                calls.append("forward")
            return x**3, x

        def backward(dy: Any, x: Any, needs: Any) -> Any:
            return (3 * dy * x**2,)

    return fast


def test_a_kernel_runs_in_place_of_the_textbook_unless_that_is_asked_for(cube: Any) -> None:
    calls: list[str] = []
    right(cube, calls)
    x = leaf(2.0)
    assert cube(x).item() == 8 and calls == ["forward"]
    with mg.textbook():
        cube(x)
    first = mg.grad(cube(x), x, create_graph=True)
    assert mg.grad(first, x).item() == 12
    assert calls == ["forward"] * 2


def test_a_right_kernel_passes(cube: Any) -> None:
    right(cube)
    mg.check_kernel(cube, np.random.default_rng(0).standard_normal((3, 4)))


def _off(x: Any) -> Any:
    return x**3 * (1 + 1e-4), x


def _narrow(x: Any) -> Any:
    return (x**3).astype(np.float32), x


def _flat(x: Any) -> Any:
    return (x**3).reshape(-1), x


ALWAYS: dict[Any, np.ndarray] = {}


def _the_same_memory(x: Any) -> Any:
    y = ALWAYS.setdefault(x.dtype, np.empty(x.shape, x.dtype))
    y[...] = x**3
    return y, x


def _into_its_input(x: Any) -> Any:
    y = x**3
    x += 1
    return y, x - 1


def _good_forward(x: Any) -> Any:
    return x**3, x


def _good_backward(dy: Any, x: Any, needs: Any) -> Any:
    return (3 * dy * x**2,)


FAULTS: dict[str, tuple[Any, Any, str]] = {
    "a wrong value": (_off, _good_backward, r"cube, float32: the value is off by 1\.0e-04"),
    "a wrong gradient": (
        _good_forward,
        lambda dy, x, needs: (3.001 * dy * x**2,),
        "cube, float32: gradient 0 is off by",
    ),
    "another dtype": (_narrow, _good_backward, "cube, float64: the value has shape .* float32"),
    "another shape": (_flat, _good_backward, r"has shape \(12,\)"),
    "memory that is used again": (
        _the_same_memory,
        _good_backward,
        "a later call has changed an earlier result",
    ),
    "a changed input": (_into_its_input, _good_backward, "an input was changed"),
}


@pytest.mark.parametrize("label", FAULTS)
def test_faults_of_kernels_are_found(cube: Any, label: str) -> None:
    ALWAYS.clear()
    forward, backward, message = FAULTS[label]
    mg.kernel(cube, "cpu")(type("faulty", (), {"forward": forward, "backward": backward}))
    with pytest.raises((mg.KernelError, mg.InPlaceError), match=message):
        mg.check_kernel(cube, np.random.default_rng(0).standard_normal((3, 4)))


def test_a_wrong_infer_is_found(cube: Any) -> None:
    right(cube).infer = staticmethod(lambda x: x**3 + 1)
    with pytest.raises(mg.KernelError, match="cube: infer is off by"):
        mg.check_kernel(cube, np.ones((2, 2)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda cube: mg.kernel("cube", "cpu"), TypeError, "'cube' is no op; subclass minigrad.Op"),
        (lambda cube: mg.kernel(cube, "tpu"), ValueError, '"cpu" or "gpu", not \'tpu\''),
        (
            lambda cube: mg.kernel(cube, "cpu")(type("half", (), {"forward": _good_forward})),
            TypeError,
            "the kernel of 'cube' has no backward",
        ),
        (lambda cube: mg.check_kernel(cube, np.ones(2)), ValueError, "'cube' has no kernel for"),
    ],
)
def test_errors(cube: Any, call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(cube)


def test_the_engines_own_kernels_pass() -> None:
    from minigrad.ops.linear import linear

    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((5, 3), (4, 3), (4,))]
    mg.check_kernel(linear, *arrays, activation="relu")
    mg.check_kernel(linear, arrays[0], arrays[1], None, activation=None)
