"""Every public function raises errors that name the function."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor
from tests.minigrad.functions.table import CALLS
from tests.minigrad.functions.test_registry import PUBLIC

X = Tensor(np.arange(8.0).reshape(2, 4))
CUBE = mg.ones((2, 2, 2))
L = mg.linalg

# Element-wise functions of one tensor accept any shape, and so do reductions over all elements.
ANY_SHAPE = {
    *("abs", "ceil", "clone", "floor", "positive", "negative", "reciprocal", "round", "sign"),
    *("signbit", "sqrt", "square", "trunc", "stop_gradient", "astype", "bitwise_invert"),
    *("exp", "expm1", "log", "log1p", "log2", "log10", "isfinite", "isinf", "isnan", "logical_not"),
    *(set(mg.functions.trigonometry.__all__) - {"arctan2", "atan2", "hypot"}),
    *mg.functions.activations.__all__,
    *("ravel", "unique", "unique_all", "unique_counts", "unique_inverse", "unique_values"),
    *("zeros_like", "ones_like", "empty_like", "to_device"),
}
# These refuse dtypes, devices and arguments, which other tests try.
ARGUMENTS = {*mg.functions.data_types.__all__, "asarray", "default_device", "from_dlpack"}
ARGUMENTS |= {"arange", "linspace"}

WRONG: dict[str, Callable[[], Any]] = {}
for name in (
    *("add", "subtract", "multiply", "divide", "power", "pow", "maximum", "minimum", "logaddexp"),
    *("hypot", "arctan2", "atan2", "copysign", "nextafter", "remainder", "floor_divide"),
    *("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"),
    *("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor"),
    *("bitwise_left_shift", "bitwise_right_shift"),
):
    dtype = "int64" if "bitwise" in name else "float32"
    WRONG[name] = lambda n=name, d=dtype: getattr(mg, n)(mg.ones(2, d), mg.ones(3, d))
for name in (
    *("sum", "prod", "mean", "var", "std", "max", "min", "argmax", "argmin", "all", "any"),
    *("count_nonzero", "logsumexp", "softmax", "log_softmax", "cumsum", "cumprod"),
    *("cumulative_sum", "cumulative_prod", "sort", "argsort", "flip", "diff", "unstack", "squeeze"),
):
    WRONG[name] = lambda n=name: getattr(mg, n)(X, axis=2)
WRONG |= {
    "clip": lambda: mg.clip(X, mg.ones(3)),
    "where": lambda: mg.where(mg.ones(3) > 0, X, 0.0),
    "topk": lambda: mg.topk(X, 5),
    "searchsorted": lambda: mg.searchsorted(X, 1.0),
    "nonzero": lambda: mg.nonzero(mg.ones(())),
    "reshape": lambda: mg.reshape(X, (3, 3)),
    "transpose": lambda: mg.transpose(X, (0, 0)),
    "permute_dims": lambda: mg.permute_dims(X, (0, 1, 2)),
    "matrix_transpose": lambda: mg.matrix_transpose(mg.ones(2)),
    "moveaxis": lambda: mg.moveaxis(X, (0, 1), 0),
    "swapaxes": lambda: mg.swapaxes(X, 0, 2),
    "expand_dims": lambda: mg.expand_dims(X, 4),
    "broadcast_to": lambda: mg.broadcast_to(X, (3, 4)),
    "broadcast_arrays": lambda: mg.broadcast_arrays(X, X[:, :2]),
    "concatenate": lambda: mg.concatenate([X, X[:, :2]]),
    "concat": lambda: mg.concat([X, mg.ones(2)]),
    "stack": lambda: mg.stack([X, X[:, :2]]),
    "split": lambda: mg.split(X, 3, axis=1),
    "pad": lambda: mg.pad(X, ((1, 1),) * 3),
    "take": lambda: mg.take(X, [0], axis=3),
    "getitem": lambda: mg.getitem(X, (0, 0, 0)),
    "scatter_add": lambda: mg.scatter_add(X, slice(None), (4, 3)),
    "roll": lambda: mg.roll(X, (1, 2), 0),
    "repeat": lambda: mg.repeat(X, [1, 2], 1),
    "tile": lambda: mg.tile(X, -1),
    "take_along_axis": lambda: mg.take_along_axis(X, [0]),
    "meshgrid": lambda: mg.meshgrid(X, X),
    "tril": lambda: mg.tril(X[0]),
    "triu": lambda: mg.triu(X[0]),
    "diagonal": lambda: mg.diagonal(X[0]),
    "trace": lambda: mg.trace(X[0]),
    "flatten": lambda: mg.flatten(X, 1, 0),
    "matmul": lambda: mg.matmul(X, X),
    "dot": lambda: mg.dot(X, X),
    "outer": lambda: mg.outer(X, "x"),
    "vecdot": lambda: mg.vecdot(X, X[:, :2]),
    "tensordot": lambda: mg.tensordot(X, X, 1),
    "einsum": lambda: mg.einsum("ij,jk->ik", X, X),
    "norm": lambda: mg.norm(CUBE, 1),
    "zeros": lambda: mg.zeros((-1,)),
    "ones": lambda: mg.ones((2, 3), 4),
    "empty": lambda: mg.empty((-1,)),
    "full": lambda: mg.full((-1,), 1.0),
    "full_like": lambda: mg.full_like(X, mg.ones(3)),
    "eye": lambda: mg.eye(3, 2.5, "float64"),
    "linalg.matmul": lambda: L.matmul(X, X),
    "linalg.outer": lambda: L.outer(X, "x"),
    "linalg.vecdot": lambda: L.vecdot(X, X[:, :2]),
    "linalg.tensordot": lambda: L.tensordot(X, X, axes=3),
    "linalg.matrix_transpose": lambda: L.matrix_transpose(mg.ones(2)),
    "linalg.norm": lambda: L.norm(CUBE, "fro"),
    "linalg.vector_norm": lambda: L.vector_norm(X, axis=3),
    "linalg.matrix_norm": lambda: L.matrix_norm(X[0]),
    "linalg.diagonal": lambda: L.diagonal(X[0]),
    "linalg.trace": lambda: L.trace(X[0]),
    "linalg.cross": lambda: L.cross(X, X),
    "linalg.solve": lambda: L.solve(X, X),
    **{
        f"linalg.{name}": lambda n=name: getattr(L, n)(X)
        for name in ("inv", "det", "slogdet", "cholesky")
    },
    "linalg.matrix_power": lambda: L.matrix_power(X, 2),
}


def test_every_public_function_has_a_mistake_or_takes_any_shape() -> None:
    assert PUBLIC - set(WRONG) - ANY_SHAPE - ARGUMENTS == set()
    assert set(WRONG) <= PUBLIC and not set(WRONG) & ANY_SHAPE


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_by_name(name: str) -> None:
    with pytest.raises((ShapeError, ValueError, TypeError, IndexError)) as caught:
        WRONG[name]()
    numpys = name in ("zeros", "empty", "full", "outer", "linalg.outer")  # NumPy says it clearly
    if not numpys:
        said = str(caught.value)
        short = name.rpartition(".")[2]
        assert any(word in said for word in (short, *SAID_AS.get(name, ()))), said


# Functions that call other functions: their messages name those.
SAID_AS: dict[str, tuple[str, ...]] = {
    **{name: ("var", "cumsum", "cumprod") for name in ("std", "cumulative_sum", "cumulative_prod")},
    **dict.fromkeys(
        ("pow", "atan2", "count_nonzero", "copysign"), ("power", "arctan2", "sum", "equal")
    ),
    **dict.fromkeys(("permute_dims", "matrix_transpose"), ("transpose", "swapaxes")),
    **dict.fromkeys(("bitwise_left_shift", "bitwise_right_shift"), ("left_shift", "right_shift")),
    **dict.fromkeys(("concat", "full_like"), ("concatenate", "broadcast_to")),
    **dict.fromkeys(("trace", "linalg.trace", "linalg.matrix_transpose"), ("diagonal", "swapaxes")),
    **dict.fromkeys(("dot", "tile", "clip"), ("matmul", "reshape", "broadcast_to", "clip_between")),
    **dict.fromkeys(("take", "sort"), ("argsort", "take")),
}


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda x: x.sort(2), mg.ShapeError, "axis 2"),
        (lambda x: x.topk(5), mg.ShapeError, "topk"),
        (lambda x: x.cumsum(3), mg.ShapeError, "cumsum"),
        (lambda x: x.prod(2), mg.ShapeError, "prod"),
        (lambda x: x.std(5), mg.ShapeError, "var"),
        (lambda x: x.var(axis=(0, 0)), mg.ShapeError, "var"),
        (lambda x: x.any(4), mg.ShapeError, "any"),
        (lambda x: x.flip(2), mg.ShapeError, "flip"),
        (lambda x: x.roll((1, 2), 0), mg.ShapeError, "roll"),
        (lambda x: x.repeat([1, 2], 1), mg.ShapeError, "repeat"),
        (lambda x: x.diagonal(0, 1, 1), mg.ShapeError, "moveaxis"),
        (lambda x: x[0].tril(), mg.ShapeError, "tril"),
        (lambda x: x[0].diagonal(), mg.ShapeError, "diagonal"),
        (lambda x: x.flatten(1, 0), mg.ShapeError, "flatten"),
        (lambda x: x.det(), mg.ShapeError, "square"),
        (lambda x: x.cross(x, axis=0), mg.ShapeError, "cross"),
        (lambda x: x[0, 0].nonzero(), mg.ShapeError, "nonzero"),
        (lambda x: x[0, 0].sort(), mg.ShapeError, "order"),
        (lambda x: x.searchsorted(1.0), mg.ShapeError, "searchsorted"),
        (lambda x: x[0].searchsorted(1.0, "middle"), ValueError, "side"),
        (lambda x: x.diff(-1), ValueError, "diff"),
        (lambda x: mg.take_along_axis(x, [0]), mg.ShapeError, "take_along_axis"),
        (lambda x: mg.tensordot(x, x, 1), mg.ShapeError, "tensordot"),
        (lambda x: mg.tensordot(x, x, 3), mg.ShapeError, "tensordot"),
        (lambda x: mg.vecdot(x, x[:, :2]), mg.ShapeError, "vecdot"),
        (lambda x: mg.meshgrid(x, x), mg.ShapeError, "meshgrid"),
        (lambda x: mg.meshgrid(x[0], indexing="yx"), ValueError, "indexing"),
        (lambda x: mg.broadcast_arrays(x, x[:, :2]), mg.ShapeError, "broadcast_arrays"),
        (lambda x: mg.moveaxis(x, (0, 1), 0), mg.ShapeError, "moveaxis"),
        (lambda x: mg.unstack(x, axis=2), mg.ShapeError, "unstack"),
        (lambda x: mg.norm(mg.ones((2, 2, 2)), 1), mg.ShapeError, "norm"),
        (lambda x: mg.linalg.matrix_norm(x, ord=3), ValueError, "matrix_norm"),
        (lambda x: mg.linalg.matrix_norm(x[0]), mg.ShapeError, "matrix_norm"),
        (lambda x: mg.linalg.inv(mg.zeros((2, 2))), np.linalg.LinAlgError, "[Ss]ingular"),
        (lambda x: mg.linalg.cholesky(-mg.eye(2)), np.linalg.LinAlgError, "definite"),
        (lambda x: mg.linalg.solve(mg.eye(2), x.T), mg.ShapeError, "solve"),
        (lambda x: (x > 1) // (x > 2), TypeError, "booleans"),
        (lambda x: (x > 1) % (x > 2), TypeError, "booleans"),
    ],
)
def test_mistakes_say_what_is_wrong(wrong: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        wrong(Tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 5.0, 6.0, 7.0]]))


@pytest.mark.parametrize("call", CALLS, ids=[f"{i}-{c.name}" for i, c in enumerate(CALLS)])
def test_complex_numbers_are_refused(call: Any) -> None:
    arrays = [np.full(shape, 1j) for shape in call.shapes]
    with pytest.raises((TypeError, AttributeError)):
        call.function(mg, *arrays)
