"""The rules of the Array API standard: names, calls, dtypes, and special values."""

import inspect
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from tests.minigrad.functions.standard import FUNCTIONS, MEMBERS, NOT_OFFERED

inf, nan = np.inf, np.nan


def looked_up(name: str) -> Any:
    found: Any = mg
    for part in name.split("."):
        found = getattr(found, part)
    return found


def signature(text: str) -> inspect.Signature:
    space: dict[str, Any] = {}
    exec(f"def f({text}): pass", space)
    return inspect.signature(space["f"])


@pytest.mark.parametrize("line", FUNCTIONS, ids=[line.partition("(")[0] for line in FUNCTIONS])
def test_a_function_can_be_called_as_the_standard_says(line: str) -> None:
    name, _, parameters = line.removesuffix(")").partition("(")
    if name in NOT_OFFERED:
        with pytest.raises(AttributeError):
            looked_up(name)
        return
    ours = list(inspect.signature(looked_up(name)).parameters.values())
    by_name = {parameter.name: parameter for parameter in ours}
    for position, theirs in enumerate(signature(parameters).parameters.values()):
        if theirs.kind is theirs.VAR_POSITIONAL:
            assert ours[position].kind is theirs.VAR_POSITIONAL
            continue
        if theirs.kind is not theirs.KEYWORD_ONLY:
            assert ours[position].kind in (theirs.POSITIONAL_ONLY, theirs.POSITIONAL_OR_KEYWORD)
        if theirs.kind is not theirs.POSITIONAL_ONLY:
            assert by_name[theirs.name].kind is not theirs.POSITIONAL_ONLY
        if theirs.kind is theirs.POSITIONAL_OR_KEYWORD:
            assert ours[position].name == theirs.name
        if theirs.default is not theirs.empty and theirs.kind is not theirs.POSITIONAL_ONLY:
            default = by_name[theirs.name].default
            assert default == theirs.default or (default is None and theirs.default == 0.0)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_tensor_has_what_the_standard_asks_of_an_array(name: str) -> None:
    assert hasattr(mg.ones((1, 1)), name)


def test_the_namespace_says_what_it_is() -> None:
    x = mg.ones(2)
    assert x.__array_namespace__() is mg and x.__array_namespace__(api_version="2024.12") is mg
    with pytest.raises(ValueError, match=r"2024\.12"):
        x.__array_namespace__(api_version="2031.12")
    info = mg.__array_namespace_info__()
    assert info.capabilities()["boolean indexing"] and info.capabilities()["max dimensions"] == 64
    assert info.default_device() in info.devices() and mg.Device("cpu") in info.devices()
    assert info.default_dtypes(device=x.device) == {
        "real floating": mg.float32,
        "integral": mg.int64,
        "indexing": mg.int64,
    }
    assert set(info.dtypes(kind="real floating")) == {"float32", "float64"}
    assert set(info.dtypes(kind=("bool", "unsigned integer"))) == {
        *("bool", "uint8", "uint16", "uint32", "uint64")
    }
    assert info.dtypes()["bool"] == mg.bool and len(info.dtypes()) == 11
    with mg.default_device("cpu"):
        assert info.default_device() == mg.Device("cpu")


def test_constants_and_dtypes() -> None:
    assert (mg.inf, mg.newaxis) == (inf, None) and mg.nan != mg.nan
    assert mg.e == np.e and mg.pi == np.pi
    for name in ("bool", "int8", "int64", "uint16", "float16", "float32", "float64"):
        assert getattr(mg, name) == np.dtype(name) == mg.ones(1, dtype=name).dtype
    assert mg.ones(3)[mg.newaxis].shape == (1, 3)


def test_questions_about_dtypes() -> None:
    assert mg.isdtype(mg.int8, "signed integer") and not mg.isdtype(mg.uint8, "signed integer")
    assert mg.isdtype(mg.bool, ("integral", "bool")) and mg.isdtype(mg.float32, mg.float32)
    assert not mg.isdtype(mg.bool, "numeric") and not mg.isdtype(mg.int8, mg.int16)
    with pytest.raises(ValueError, match="no kind of dtypes"):
        mg.isdtype(mg.bool, "quaternion")
    assert mg.can_cast(mg.int8, mg.int16) and not mg.can_cast(mg.ones(1), mg.int64)
    assert mg.result_type(mg.int8, mg.uint8) == mg.int16
    assert mg.result_type(mg.ones(1), 2.0, mg.int64) == mg.float32
    assert mg.result_type(1, 2.5) == mg.float32 and mg.result_type(True) == mg.bool
    with pytest.raises(TypeError, match="at least one"):
        mg.result_type()
    with pytest.raises(TypeError, match="no integer dtype"):
        mg.result_type(mg.uint64, mg.int8)
    limits = mg.finfo(mg.ones(1))
    assert limits.bits == 32 and limits.max == np.finfo(np.float32).max and limits.eps == 2**-23
    assert limits.min == -limits.max and limits.smallest_normal == 2.0**-126
    assert type(limits.eps) is float and limits.dtype == mg.float32
    assert mg.iinfo(mg.uint8)[:3] == (8, 255, 0) and mg.iinfo(mg.arange(2)).bits == 64
    with pytest.raises(TypeError, match="iinfo"):
        mg.finfo(mg.int8)
    with pytest.raises(TypeError, match="finfo"):
        mg.iinfo(mg.float32)


SPECIAL = np.array([nan, inf, -inf, 0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 0.5, 1e-300, 3.0])
ONE = ("abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "exp")
ONE += ("expm1", "floor", "isfinite", "isinf", "isnan", "log", "log1p", "log2", "log10")
ONE += ("logical_not", "negative", "positive", "reciprocal", "round", "sign", "signbit", "sin")
ONE += ("sinh", "square", "sqrt", "tan", "tanh", "trunc")
TWO = ("add", "atan2", "copysign", "divide", "equal", "floor_divide", "greater", "greater_equal")
TWO += ("hypot", "less", "less_equal", "logaddexp", "logical_and", "logical_or", "logical_xor")
TWO += ("maximum", "minimum", "multiply", "nextafter", "not_equal", "pow", "remainder", "subtract")
NUMPYS = {"acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh"}
NUMPYS |= {"atan": "arctan", "atanh": "arctanh", "atan2": "arctan2", "pow": "power"}


@pytest.mark.parametrize("name", ONE + TWO)
def test_special_values_and_signs_of_zero(name: str) -> None:
    """NumPy follows the standard (and C) here, so results are compared with NumPy's."""
    operands = [SPECIAL]
    if name in TWO:
        operands = [a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL)]
    with np.errstate(all="ignore"):
        got = getattr(mg, name)(*map(Tensor, operands)).numpy()
        want = getattr(np, NUMPYS.get(name, name))(*operands)
        if name == "floor_divide":  # NumPy gives NaN and -1; the standard says otherwise
            infinite = np.isinf(operands[0]) | np.isinf(operands[1])
            want = np.where(infinite, np.floor(operands[0] / operands[1]), want)
    np.testing.assert_array_equal(got, want)
    if want.dtype.kind == "f":
        zeros = want == 0
        np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(want[zeros]))


def test_what_has_no_elements() -> None:
    empty = mg.zeros((0, 3))
    assert mg.sum(empty).item() == 0 and mg.prod(empty, axis=0).tolist() == [1, 1, 1]
    assert mg.all(empty).item() and not mg.any(empty).item()
    assert mg.cumulative_sum(empty, axis=0, include_initial=True).tolist() == [[0, 0, 0]]
    assert mg.sort(empty, axis=0).shape == mg.flip(empty).shape == mg.roll(empty, 1).shape == (0, 3)
    assert mg.unique_values(empty).shape == (0,) and mg.linalg.vector_norm(empty).item() == 0
    assert mg.linalg.vector_norm(empty, axis=0, ord=3).tolist() == [0, 0, 0]
    assert mg.linalg.det(mg.zeros((0, 0))).item() == 1 and mg.unstack(empty) == ()
    for name in ("max", "min", "argmax", "argmin"):
        with pytest.raises(mg.ShapeError, match=r"\(0, 3\)"):
            getattr(mg, name)(empty, 0)


def test_nan_is_a_value_of_its_own_in_the_standards_sets() -> None:
    x = Tensor([nan, 1.0, nan, 1.0, -0.0, 0.0])
    found = mg.unique_all(x)
    assert found.counts.tolist() == [2, 2, 1, 1] and mg.unique(x).shape == (3,)
    assert found.values.tolist()[:2] == [0, 1] and found.indices.tolist()[:2] == [4, 1]
    assert found.inverse_indices.shape == x.shape
    assert mg.unique_counts(x)._fields == ("values", "counts")
    assert mg.unique_inverse(x)._fields == ("values", "inverse_indices")


def test_copies_are_made_when_they_are_asked_for() -> None:
    x = mg.ones((2, 3))
    for shared in (mg.asarray(x), mg.asarray(x.numpy(), copy=False), mg.reshape(x, 6)):
        assert np.shares_memory(shared.numpy(), x.numpy())
    assert mg.astype(x, mg.float32, copy=False) is x
    copies = [mg.asarray(x, copy=True), mg.astype(x, mg.float32), mg.reshape(x, 6, copy=True)]
    copies += [mg.from_dlpack(x, copy=True), x.copy(), x.clone(), +x, mg.floor(mg.arange(2))]
    assert not any(np.shares_memory(y.numpy(), x.numpy()) for y in copies)
    for needs_a_copy in (
        lambda: mg.asarray([1.0], copy=False),
        lambda: mg.asarray(x, mg.float64, copy=False),
        lambda: mg.reshape(x.T, 6, copy=False),
    ):
        with pytest.raises(ValueError, match="copy"):
            needs_a_copy()
    leaf = mg.asarray(x, copy=True, requires_grad=True)
    assert leaf.is_leaf and leaf.requires_grad
    with pytest.raises(ValueError, match="stream"):
        x.to_device("cpu", stream=1)
    assert x.to_device("cpu") is x and complex(mg.ones(())) == 1 + 0j
