"""The rule of `minigrad.dtypes`, for all pairs of dtypes and kinds of numbers, in both orders."""

from itertools import product
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor

FLOATS = ("float16", "float32", "float64")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
DTYPES = ("bool", *SIGNED, *UNSIGNED, *FLOATS)
SCALARS: dict[str, Any] = {
    "True": True,
    "2": 2,
    "2.0": 2.0,
    **{f"np.{name}(2)": np.dtype(name).type(2) for name in DTYPES},
}
ARITHMETIC = ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum")
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


def expected(x: str, y: str) -> np.dtype | None:
    """The rule again, by tables instead of by NumPy's promotion."""
    floats = [FLOATS.index(name) for name in (x, y) if name in FLOATS]
    if floats:
        return np.dtype(FLOATS[max(floats)])
    if x == y or y == "bool":
        return np.dtype(x)
    if x == "bool":
        return np.dtype(y)
    if (x in SIGNED) == (y in SIGNED):
        order = SIGNED if x in SIGNED else UNSIGNED
        return np.dtype(order[max(order.index(x), order.index(y))])
    signed, unsigned = (x, y) if x in SIGNED else (y, x)
    wide = max(SIGNED.index(signed), UNSIGNED.index(unsigned) + 1)
    return np.dtype(SIGNED[wide]) if wide < len(SIGNED) else None


def beside_scalar(dtype: str, scalar: Any) -> np.dtype:
    kind = "float" if isinstance(scalar, float) else np.asarray(scalar).dtype.kind
    if dtype in FLOATS:
        return np.dtype(dtype)
    if kind in ("float", "f"):
        return np.dtype(np.float32)
    return np.dtype(np.int64) if dtype == "bool" and kind != "b" else np.dtype(dtype)


def result_of(name: str, operands: np.dtype) -> np.dtype:
    """The dtype of a binary function's result, from the common dtype of its operands."""
    if name == "divide" and operands.kind != "f":
        return np.dtype(np.float32)
    return np.dtype(np.int64) if name == "power" and operands.kind == "b" else operands


@pytest.mark.parametrize("x", DTYPES)
def test_all_pairs_of_tensors(x: str) -> None:
    for name, y in product(ARITHMETIC, DTYPES):
        left, right = mg.ones(3, x), mg.ones(3, y)
        meeting = expected(x, y)
        if name == "subtract" and x == y == "bool":
            with pytest.raises(TypeError, match="booleans have no difference"):
                mg.subtract(left, right)
        elif meeting is None:
            with pytest.raises(TypeError, match="no integer dtype holds"):
                getattr(mg, name)(left, right)
        else:
            for other in (right, right.numpy()):  # arrays and tensors count the same
                got = getattr(mg, name)(left, other), getattr(mg, name)(other, left)
                want = result_of(name, meeting)
                assert [z.dtype for z in got] == [want, want], (name, x, y)
                total = 2 if name == "add" and meeting.kind != "b" else 1
                assert all((z.numpy() == total).all() for z in got) or name == "subtract"


@pytest.mark.parametrize("x", DTYPES)
@pytest.mark.parametrize("text", SCALARS)
def test_a_scalar_never_decides(x: str, text: str) -> None:
    scalar, tensor = SCALARS[text], mg.ones(3, x)
    for name in ARITHMETIC:
        meeting = beside_scalar(x, scalar)
        if name == "subtract" and meeting.kind == "b":
            continue
        want = result_of(name, meeting)
        for z in (getattr(mg, name)(tensor, scalar), getattr(mg, name)(scalar, tensor)):
            assert z.dtype == want, (name, x, text)
    for z in (mg.where(tensor > 0, tensor, scalar), mg.where(tensor > 0, scalar, tensor)):
        assert z.dtype == beside_scalar(x, scalar), (x, text)
    assert mg.clip(tensor, scalar).dtype == beside_scalar(x, scalar)
    assert mg.clip(tensor, None, scalar).dtype == beside_scalar(x, scalar)
    assert mg.stack([tensor[0], scalar]).dtype == beside_scalar(x, scalar)
    assert mg.full_like(tensor, scalar).dtype == np.dtype(x)
    for name in COMPARISONS:
        assert getattr(mg, name)(tensor, scalar).dtype == getattr(mg, name)(scalar, tensor).dtype
        assert getattr(mg, name)(tensor, scalar).dtype == np.bool


@pytest.mark.parametrize(("x", "y"), list(product(DTYPES, DTYPES)))
def test_functions_of_several_tensors(x: str, y: str) -> None:
    want = expected(x, y)
    if want is None:
        with pytest.raises(TypeError, match="no integer dtype holds"):
            mg.concatenate([mg.ones(2, x), mg.ones(2, y)])
        return
    a, b = mg.ones((2, 2), x), mg.ones((2, 2), y)
    assert mg.concatenate([a, b]).dtype == mg.stack([a, b]).dtype == want
    assert mg.where(mg.ones(2, bool), a, b).dtype == want
    assert mg.matmul(a, b).dtype == mg.einsum("ij,jk->ik", a, b).dtype == want
    assert mg.clip(a, b).dtype == mg.clip(a, None, b).dtype == mg.clip(a, b, b).dtype == want
    assert (a < b).dtype == mg.equal(a, b).dtype == mg.logical_and(a, b).dtype == np.bool


@pytest.mark.parametrize(("x", "y"), list(product(FLOATS, DTYPES)))
def test_a_gradient_has_the_dtype_of_its_tensor(x: str, y: str) -> None:
    for name in ARITHMETIC:
        left = mg.ones(3, x, requires_grad=True)
        right = mg.ones(3, y, requires_grad=y in FLOATS)
        getattr(mg, name)(left, right).sum().backward()
        assert left.grad is not None and left.grad.dtype == np.dtype(x)
        assert right.grad is None or right.grad.dtype == np.dtype(y)


def test_scalars_alone() -> None:
    assert mg.add(1, 2).dtype == mg.add(True, np.int8(2)).dtype == np.int64
    assert mg.add(1, 2.5).dtype == mg.multiply(np.float64(2), 3).dtype == np.float32
    assert mg.where([True, False], np.float64(1), 0.0).dtype == np.float32
    assert mg.maximum(True, False).dtype == np.bool
    # Without other operands, the constructor keeps the dtype of a NumPy scalar.
    assert Tensor(np.float64(1)).dtype == np.float64 and Tensor([np.float64(1)]).dtype == np.float32


def test_the_cases_that_used_to_widen() -> None:
    x = mg.ones(3)
    assert (mg.arange(3) * x).dtype == (x * np.int64(2)).dtype == (x ** np.float64(2)).dtype
    assert (x ** np.float64(2)).dtype == x.clip(np.float64(0)).dtype == np.float32
    assert x.clip(np.zeros(3, np.int64)).dtype == np.float32
    assert mg.pad(x, 1, np.float64(3)).dtype == np.float32
    assert mg.pad(mg.arange(3), 1, 0.5).tolist() == [0.5, 0, 1, 2, 0.5]
    half = x.astype("float16")
    assert (half * np.float32(2)).dtype == (half + np.arange(3)).dtype == np.float16
    for make in (mg.zeros, mg.ones, lambda n, dtype: mg.full(n, 2.0, dtype), mg.eye):
        assert make(3, dtype=None).dtype == np.float32
    assert mg.linspace(0, 1, 3, None).dtype == mg.arange(3.0).dtype == np.float32
    assert mg.arange(np.float64(3)).dtype == mg.arange(0, 3, np.float32(1)).dtype == np.float32
    assert mg.arange(np.int8(3)).dtype == mg.arange(Tensor(3)).dtype == np.int64


def test_reductions() -> None:
    for name in ("bool", *SIGNED, *UNSIGNED):
        x = mg.ones((2, 3), name)
        assert x.sum().dtype == np.ones(2, name).sum().dtype and x.sum().item() == 6
        assert x.mean(1).dtype == x.var().dtype == mg.softmax(x).dtype == np.float32
        assert mg.logsumexp(x).dtype == mg.exp(x).dtype == np.float32
        assert x.max().dtype == x.min(0).dtype == np.dtype(name)
    for name in FLOATS:
        x = mg.ones((2, 3), name)
        for y in (x.sum(), x.mean(1), x.var(), x.max(0), mg.softmax(x), mg.logsumexp(x), x.exp()):
            assert y.dtype == np.dtype(name)


def test_a_scalar_that_does_not_fit_is_refused() -> None:
    x = Tensor(np.array([1, 2], np.uint8))
    for wrong in (300, -1, np.int64(300)):
        for operation in (
            lambda n: x + n,
            lambda n: n * x,
            lambda n: mg.where(x > 1, x, n),
            lambda n: mg.clip(x, n),
            lambda n: mg.full_like(x, n),
            lambda n: mg.pad(x, 1, n),
        ):
            with pytest.raises(OverflowError, match="limits of uint8"):
                operation(wrong)
        assert (x < wrong).tolist() == [wrong == 300] * 2, "comparisons are exact"
    with pytest.raises(TypeError, match="real numbers"):
        x + np.complex64(1j)


def test_integers_to_a_negative_power_are_refused() -> None:
    for power in (lambda: mg.arange(3) ** -1, lambda: mg.arange(3) ** Tensor([1, -1, 1])):
        with pytest.raises(ValueError, match="astype"):
            power()
    assert (Tensor([2]) ** -1.0).tolist() == [0.5]
    assert (2 ** Tensor([0.0, -1.0])).tolist() == [1, 0.5]


@pytest.mark.parametrize("name", ["exp", "sum", "relu", "abs", "softmax", "clip", "huber_loss"])
def test_functions_of_a_scalar_alone(name: str) -> None:
    given = {"softmax": {"axis": 0}, "clip": {"min": 0, "max": 1}, "huber_loss": {"target": 0}}
    function = getattr(mg, name, None) or getattr(mg.nn.functional, name)
    for kind in FLOATS:
        assert function(np.dtype(kind).type(2), **given.get(name, {})).dtype == np.float32


@pytest.mark.parametrize("dtype", [complex, object, "U3", "datetime64[s]", None])
def test_dtypes_that_no_tensor_has_are_refused(dtype: Any) -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(TypeError, match=r"None is no dtype|not (complex|object|<U3|datetime)"):
        x.astype(dtype)
    if dtype is not None:
        for make in (mg.zeros, mg.ones, mg.arange, mg.eye):
            with pytest.raises(TypeError, match="a tensor holds"):
                make(3, dtype=dtype)
        with pytest.raises(TypeError, match="a tensor holds"):
            mg.full(3, 1, dtype)


def test_a_complex_value_is_refused() -> None:
    with pytest.raises(TypeError, match="not 1j"):
        mg.full(3, 1j)


def test_integers_that_are_said_to_want_a_gradient_are_refused() -> None:
    x = mg.arange(3)
    x.requires_grad = True
    for use in (lambda: x * 2.0, lambda: x * mg.ones(3), lambda: x.sum(), lambda: mg.exp(x)):
        with pytest.raises(TypeError, match="cannot require a gradient"):
            use()
