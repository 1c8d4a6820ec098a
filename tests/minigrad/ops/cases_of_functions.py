"""Cases for the ops of `cumulative` and `linear_algebra`, and for functions that call other ops.

A function is listed under one of the ops that it runs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import Tensor
from minigrad.functions.linalg import packed_svd
from tests.minigrad.ops.registry import case, distinct, positive


def composed(
    public: str, op: str, label: str, function: Callable[..., Tensor], *inputs: Any
) -> None:
    case(op, f"{public}, {label}", function, *inputs, public=public)


# Element-wise

composed("square", "multiply", "negatives", mg.square, (3, 1, 2))
composed("reciprocal", "divide", "negatives", mg.reciprocal, (2, 3))
composed("positive", "clone", "a matrix", mg.positive, (2, 3))
composed("pow", "power", "two tensors", mg.pow, positive(2, 3), (3,))
signs = np.array([-1.0, 2, -0.0])
composed(
    "copysign", "where", "broadcast", lambda x: mg.copysign(x, mg.asarray(signs, x.dtype)), (2, 3)
)
for alias in ("asin", "acos", "atanh"):
    composed(alias, f"arc{alias[1:]}", "the standard's", getattr(mg, alias), positive(3) - 1.1)
composed("acosh", "arccosh", "the standard's name", mg.acosh, positive(3) + 1)
composed("atan", "arctan", "the standard's name", mg.atan, (3,))
composed("asinh", "arcsinh", "the standard's name", mg.asinh, (3,))
composed("atan2", "arctan2", "the standard's name", mg.atan2, (3,), (3,))

# Reductions and cumulative functions

AXES: tuple[Any, ...] = (None, 0, -1, (0, 2), ())
for axis in AXES:
    for keepdims in (False, True):
        options = {"axis": axis, "keepdims": keepdims}
        case("prod", f"{options}", lambda x, o=options: mg.prod(x, **o), (2, 3, 2))
        if axis != ():
            composed("std", "var", f"{options}", lambda x, o=options: mg.std(x, **o), (2, 3, 2))
composed("std", "var", "a correction", lambda x: mg.std(x, 0, correction=1), (3, 2))
case("prod", "two zeros", lambda x: mg.prod(x, 1), np.array([[0.0, 2, 3], [0, 4, 0], [1, 5, 2]]))
case("prod", "a number", mg.prod, ())
case("prod", "nothing", lambda x: mg.prod(x, 0), (0, 2))
for axis in (None, 0, 1, -1):
    for name in ("cumsum", "cumprod"):
        case(name, f"axis {axis}", lambda x, n=name, a=axis: getattr(mg, n)(x, a), (3, 4))
    for name, op in (("cumulative_sum", "cumsum"), ("cumulative_prod", "cumprod")):
        composed(
            *(name, op, f"axis {axis}"),
            lambda x, n=name, a=axis: getattr(mg, n)(x, axis=a, include_initial=True),
            (2, 3),
        )
case("cumprod", "zeros", lambda x: mg.cumprod(x, 0), np.array([2.0, 0, 3, 0, 4]))
for name in ("cumsum", "cumprod"):
    case(name, "a number", getattr(mg, name), ())
    case(name, "an axis of size 1", lambda x, n=name: getattr(mg, n)(x, 1), (3, 1))
for n in (1, 2):
    composed("diff", "subtract", f"{n} times", lambda x, n=n: mg.diff(x, n, 0), (4, 2))
composed(
    *("diff", "subtract", "with ends"),
    lambda x, a, b: mg.diff(x, axis=0, prepend=a, append=b),
    *((3, 2), (1, 2), ()),
)

# Order

for axis in (None, 0, -1):
    for descending in (False, True):
        options = {"axis": axis, "descending": descending}
        composed(
            "sort", "getitem", f"{options}", lambda x, o=options: mg.sort(x, **o), distinct(3, 4)
        )
for largest in (False, True):
    composed(
        *("topk", "getitem", f"largest {largest}"),
        lambda x, g=largest: mg.topk(x, 2, 0, g).values,
        distinct(3, 4),
    )
for name in ("unique", "unique_values"):
    composed(name, "getitem", "a matrix", getattr(mg, name), distinct(2, 3))
for name in ("unique_all", "unique_counts", "unique_inverse"):
    composed(name, "getitem", "values", lambda x, n=name: getattr(mg, n)(x).values, distinct(2, 3))

# Shapes

composed("ravel", "reshape", "a matrix", mg.ravel, (2, 3))
composed("flatten", "reshape", "all", mg.flatten, (2, 3, 2))
composed("flatten", "reshape", "the last two", lambda x: mg.flatten(x, 1), (2, 3, 2))
composed("flip", "getitem", "all", mg.flip, (2, 3))
composed("flip", "getitem", "one axis", lambda x: mg.flip(x, 1), (2, 3))
composed("roll", "concatenate", "flat", lambda x: mg.roll(x, 2), (2, 3))
composed("roll", "concatenate", "two axes", lambda x: mg.roll(x, (1, -5), (0, 1)), (2, 3))
composed("repeat", "getitem", "flat", lambda x: mg.repeat(x, 2), (2, 2))
composed("repeat", "getitem", "each", lambda x: mg.repeat(x, [0, 3, 1], axis=1), (2, 3))
composed("tile", "broadcast_to", "more axes", lambda x: mg.tile(x, (2, 1, 3)), (2, 2))
composed("tile", "broadcast_to", "fewer", lambda x: mg.tile(x, 2), (2, 2))
composed("moveaxis", "transpose", "one", lambda x: mg.moveaxis(x, 0, -1), (2, 3, 2))
composed("moveaxis", "transpose", "two", lambda x: mg.moveaxis(x, (0, 1), (2, 0)), (2, 3, 2))
composed("permute_dims", "transpose", "a cycle", lambda x: mg.permute_dims(x, (1, 2, 0)), (2, 3, 2))
composed("matrix_transpose", "transpose", "a stack", mg.matrix_transpose, (2, 3, 2))
composed("squeeze", "reshape", "an axis", lambda x: mg.squeeze(x, 1), (2, 1, 3))
composed("expand_dims", "reshape", "two axes", lambda x: mg.expand_dims(x, (0, 2)), (2, 3))
composed("split", "getitem", "the second part", lambda x: mg.split(x, [1, 3])[1], (4, 2))
composed("unstack", "getitem", "the last", lambda x: mg.unstack(x, axis=1)[-1], (2, 3))
composed("concat", "concatenate", "flat", lambda *x: mg.concat(x, axis=None), (2, 2), (3,))
composed(
    *("broadcast_arrays", "broadcast_to", "a product of both"),
    lambda x, y: mg.multiply(*mg.broadcast_arrays(x, y)),
    *((3, 1), (2,)),
)
for indexing in ("xy", "ij"):
    composed(
        *("meshgrid", "broadcast_to", indexing),
        lambda x, y, z, i=indexing: mg.stack(mg.meshgrid(x, y, z, indexing=i)),
        *((2,), (3,), ()),
    )
composed("tril", "where", "a stack", lambda x: mg.tril(x, k=1), (2, 3, 4))
composed("triu", "where", "below the diagonal", lambda x: mg.triu(x, k=-1), (3, 2))
for offset in (0, 1, -1, 3):
    composed("diagonal", "getitem", f"{offset}", lambda x, k=offset: mg.diagonal(x, k), (3, 2))
composed("diagonal", "getitem", "of other axes", lambda x: mg.diagonal(x, 1, 2, 0), (3, 2, 3))
composed("trace", "sum", "a stack", lambda x: mg.trace(x, -1, 1, 2), (2, 3, 3))
places = np.array([[0, 2, 2, 1]])
composed(
    *("take_along_axis", "getitem", "repeated places"),
    lambda x: mg.take_along_axis(x, places, axis=0),
    (3, 4),
)
composed("asarray", "clone", "a copy", lambda x: mg.asarray(x, copy=True), (2,))
composed("full", "broadcast_to", "a tensor", lambda x: mg.full((2, 3), x, dtype=x.dtype), ())
composed("full_like", "broadcast_to", "a tensor", lambda x: mg.full_like(mg.zeros_like(x), x), ())

# Products and linear algebra

for left, right in (
    ((), (3,)),
    ((3,), (3,)),
    ((2, 3), (3, 2)),
    ((2, 3), (2, 3, 2)),
    ((2, 3), (3,)),
):
    op = "multiply" if left == () else "matmul"
    composed("dot", op, f"{left} {right}", mg.dot, left, right)
composed("outer", "multiply", "two vectors", mg.outer, (3,), (2,))
composed("vecdot", "matmul", "broadcast", lambda x, y: mg.vecdot(x, y, axis=0), (3, 2), (3, 1))
for axes in (0, 1, 2, ((0, 1), (1, 0))):
    composed(
        *("tensordot", "matmul", f"{axes}"),
        lambda x, y, a=axes: mg.tensordot(x, y, axes=a),
        *((3, 3), (3, 3)),
    )
L = mg.linalg
regular = positive(2, 3, 3) + 2 * np.eye(3)
for name in ("inv", "det"):
    case(name, "a stack", getattr(L, name), regular, public=f"linalg.{name}")
    case(name, "one number", getattr(L, name), positive(1, 1), public=f"linalg.{name}")
case("det", "two by two", L.det, (2, 2), public="linalg.det")
case(
    *("log_abs_det", "a stack", lambda x: L.slogdet(x).logabsdet, regular),
    public="linalg.slogdet",
)
for label, shape in (("a vector", (3,)), ("columns", (2, 3, 2)), ("broadcast", (3, 1))):
    case("solve", label, L.solve, regular, shape, public="linalg.solve")
case("solve", "one matrix", L.solve, regular[0], (2, 3, 2), public="linalg.solve")
for upper in (False, True):
    case(
        *("cholesky", f"upper {upper}"),
        lambda x, u=upper: L.cholesky(
            x @ x.mT + mg.eye(3, dtype=x.dtype, device=x.device), upper=u
        ),
        (2, 3, 3),
        public="linalg.cholesky",
    )
for axis in (None, 0, (1, 0)):
    options = {"axis": axis, "keepdims": axis == 0}
    case("norm", f"{options}", lambda x, o=options: mg.norm(x, **o), (2, 3))
    for order in (1, 3, 2, np.inf, -np.inf, 0.5):
        op = {1: "sum", 3: "power_scalar", 2: "norm", np.inf: "max", -np.inf: "min"}
        composed(
            *("linalg.vector_norm", op.get(order, "power_scalar"), f"{options}, order {order}"),
            lambda x, o=options, p=order: L.vector_norm(x, ord=p, **o),
            (2, 3),
        )
for order in ("fro", 1, -1, np.inf, -np.inf, 2, -2, "nuc"):
    op = {"fro": "norm", 1: "max", np.inf: "max", -1: "min", -np.inf: "min"}
    op = op.get(order, "singular_values")
    composed(
        *("linalg.matrix_norm", op, f"{order}"),
        lambda x, p=order: L.matrix_norm(x, ord=p),
        (2, 3, 2),
    )
    composed(
        *("norm", op, f"of matrices, {order}"),
        lambda x, p=order: mg.norm(x, p, (0, 2), keepdims=True),
        (3, 2, 2),
    )


def polar_factor(x: Tensor) -> Tensor:
    """U Vᵀ, which does not depend on the signs of the singular vectors."""
    y, m = packed_svd(x), x.shape[-2]
    return mg.matmul(y[..., :m].mT, y[..., m + 1 :])


for label, shape in (("tall", (4, 2)), ("wide", (2, 3)), ("square", (2, 2, 2))):
    case("svd", f"polar factor, {label}", polar_factor, shape)
for n in (-2, 0, 1, 3):
    op = {-2: "inv", 0: "broadcast_to"}.get(n, "matmul")
    if n > 1 or n < 0:
        composed("linalg.matrix_power", op, f"{n}", lambda x, n=n: L.matrix_power(x, n), regular)
for axis in (-1, 0):
    composed(
        *("linalg.cross", "multiply", f"axis {axis}"),
        lambda x, y, a=axis: L.cross(x, y, axis=a),
        *((3, 3), (3, 1) if axis == 0 else (1, 3)),
    )
composed("linalg.diagonal", "getitem", "last axes", lambda x: L.diagonal(x, offset=1), (2, 2, 3))
composed("linalg.trace", "sum", "last axes", lambda x: L.trace(x, offset=-1), (2, 3, 3))
for name, op in (("matmul", "matmul"), ("outer", "multiply"), ("tensordot", "matmul")):
    shapes = ((3,), (2,)) if name == "outer" else ((2, 3), (3, 2))
    calls = (lambda x, y: L.tensordot(x, y, axes=1)) if name == "tensordot" else getattr(L, name)
    composed(f"linalg.{name}", op, "as without linalg", calls, *shapes)
composed("linalg.vecdot", "matmul", "as without linalg", L.vecdot, (2, 3), (3,))
composed("linalg.matrix_transpose", "transpose", "as without linalg", L.matrix_transpose, (2, 3))
composed("linalg.norm", "norm", "as without linalg", L.norm, (2, 3))
