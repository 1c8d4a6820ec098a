"""Calls of the public functions, to compare with NumPy: values, dtypes and layouts.

A call is written once, `lambda f, x: f.sort(x, axis=0)`, and made with `minigrad` and with `numpy`.
If NumPy has no such function, `numpys` is called instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Call:
    """One use of a public function.

    Attributes:
        name: the function's name; "linalg.det" for one of `minigrad.linalg`.
        function: makes the call: `function(minigrad, *tensors)`.
        numpys: the same for NumPy: `numpys(numpy, *arrays)`.
        shapes: the operands' shapes.
        kinds: the kinds of dtypes that it accepts: booleans, signed and unsigned integers, floats.
        limits: the smallest and the largest value of the operands.
        floats: whether integers are converted to float32.
    """

    name: str
    function: Callable[..., Any]
    numpys: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    kinds: str
    limits: tuple[float, float]
    floats: bool


CALLS: list[Call] = []


def call(
    name: str,
    function: Callable[..., Any],
    *shapes: tuple[int, ...],
    numpys: Callable[..., Any] | None = None,
    kinds: str = "biuf",
    limits: tuple[float, float] = (-4, 4),
    floats: bool = False,
) -> None:
    shapes = shapes or ((3, 4),)
    CALLS.append(Call(name, function, numpys or function, shapes, kinds, limits, floats))


def by_name(name: str, **options: Any) -> Callable[..., Any]:
    """`f.name(*operands, **options)`, also for a dotted name."""

    def made(f: Any, *operands: Any) -> Any:
        for part in name.split("."):
            f = getattr(f, part)
        return f(*operands, **options)

    return made


PAIR = ((3, 4), (4,))

# Element-wise

for name in ("add", "multiply", "maximum", "minimum", "equal", "not_equal", "less", "less_equal"):
    call(name, by_name(name), *PAIR)
for name in ("greater", "greater_equal", "logical_and", "logical_or", "logical_xor"):
    call(name, by_name(name), *PAIR)
for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    call(name, by_name(name), *PAIR, kinds="biu")
for name in ("bitwise_left_shift", "bitwise_right_shift"):
    theirs = by_name(name.removeprefix("bitwise_"))
    call(name, by_name(name), *PAIR, numpys=theirs, kinds="iu", limits=(0, 6))
call("subtract", by_name("subtract"), *PAIR, kinds="iuf")
for name in ("floor_divide", "remainder"):
    call(name, by_name(name), *PAIR, kinds="iuf", limits=(1, 9))
    call(name, lambda f, x, y, n=name: getattr(f, n)(x, -y), *PAIR, kinds="if", limits=(1, 9))
for name in ("divide", "logaddexp", "hypot", "arctan2", "copysign"):
    call(name, by_name(name), *PAIR, kinds="iuf", floats=True, limits=(1, 4))
call("atan2", by_name("atan2"), *PAIR, numpys=by_name("arctan2"), kinds="f")
call("nextafter", by_name("nextafter"), *PAIR, kinds="f")
for name in ("power", "pow"):
    call(name, by_name(name), *PAIR, numpys=by_name("power"), kinds="iuf", limits=(0, 4))
for name in ("abs", "square", "sign"):
    call(name, by_name(name), kinds="iuf")
for name in ("negative", "positive"):
    call(name, by_name(name), kinds="iuf")
call("clone", by_name("clone"), numpys=by_name("copy"))
call("stop_gradient", by_name("stop_gradient"), numpys=by_name("copy"))
for name in ("floor", "ceil", "trunc"):
    call(name, by_name(name), numpys=lambda f, x, n=name: getattr(f, n)(x).astype(x.dtype))
call("round", by_name("round"), kinds="iuf")
call("round", by_name("round", decimals=1), kinds="f")
call("round", by_name("round", decimals=-1), kinds="iuf", limits=(0, 100))
for name in ("isfinite", "isinf", "isnan", "logical_not"):
    call(name, by_name(name))
call("signbit", by_name("signbit"), kinds="f")
call("bitwise_invert", by_name("bitwise_invert"), numpys=by_name("invert"), kinds="biu")
for name in ("exp", "expm1", "sin", "cos", "tan", "tanh", "sinh", "cosh", "arctan", "arcsinh"):
    call(name, by_name(name), floats=True)
for name in ("log", "log2", "log10", "log1p", "sqrt", "reciprocal", "arccosh"):
    call(name, by_name(name), kinds="iuf", floats=True, limits=(1, 5))
for name in ("arcsin", "arccos"):
    call(name, by_name(name), floats=True, limits=(-1, 1))
call("arctanh", by_name("arctanh"), kinds="f", limits=(-0.9, 0.9))
for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh"):
    limits = (1, 2) if name == "acosh" else (-0.9, 0.9)
    call(name, by_name(name), numpys=by_name(f"arc{name[1:]}"), kinds="f", limits=limits)
call("clip", by_name("clip", min=-1, max=2), kinds="if")
call("where", lambda f, c, x, y: f.where(c > 0, x, y), (4,), *PAIR)
call("astype", lambda f, x: f.astype(x, "float64"), numpys=lambda f, x: x.astype("float64"))

# Reductions

for options in ({}, {"axis": 0}, {"axis": (0, 1), "keepdims": True}, {"axis": -1}):
    for name in ("sum", "prod", "all", "any"):
        call(name, by_name(name, **options))
    call("count_nonzero", by_name("count_nonzero", **options))
    for name in ("max", "min"):
        call(name, by_name(name, **options))
    for name in ("mean", "var", "std"):
        call(name, by_name(name, **options), floats=True)
for dtype in ("float64", "int8"):
    for name in ("sum", "prod", "cumsum", "cumprod"):
        call(name, by_name(name, dtype=dtype), kinds="biuf" if dtype == "float64" else "biu")
for name in ("var", "std"):
    call(name, by_name(name, ddof=1), floats=True)
    call(name, by_name(name, correction=1.5), numpys=by_name(name, ddof=1.5), floats=True)
for name in ("argmax", "argmin"):
    call(name, by_name(name, axis=1))
    call(name, by_name(name, keepdims=True))
for axis in (None, 0, -1):
    for name in ("cumsum", "cumprod"):
        call(name, by_name(name, axis=axis))
        theirs = by_name(name, axis=axis)
        long = {"cumsum": "cumulative_sum", "cumprod": "cumulative_prod"}[name]
        call(long, by_name(long, axis=axis), numpys=theirs)
call(
    "cumulative_sum",
    by_name("cumulative_sum", axis=1, include_initial=True, dtype="float64"),
    numpys=lambda f, x: f.pad(f.cumsum(x, axis=1, dtype="float64"), ((0, 0), (1, 0))),
)
call("diff", by_name("diff", n=2, axis=0), kinds="if", numpys=by_name("diff", n=2, axis=0))
call("diff", lambda f, x: f.diff(x, prepend=x[:, :1], append=x[:, :2]))

# Order and sets

for options in ({}, {"axis": 0}, {"axis": None}):
    for name in ("sort", "argsort"):
        call(name, by_name(name, **options), numpys=by_name(name, kind="stable", **options))


def descending(f: Any, x: Any) -> Any:
    """The indices that sort x in descending order; equal elements keep their order."""
    rows = [sorted(range(len(row)), key=lambda i: (-float(row[i]), i)) for row in x]
    return np.array(rows)


call("argsort", by_name("argsort", descending=True), numpys=descending)
call("sort", by_name("sort", descending=True), numpys=lambda f, x: f.sort(x)[:, ::-1])
call(
    "topk",
    lambda f, x: f.topk(x, 2),
    numpys=lambda f, x: (f.sort(x)[:, :-3:-1], descending(f, x)[:, :2]),
)
call("nonzero", by_name("nonzero"))
for side in ("left", "right"):
    call(
        "searchsorted",
        lambda f, x, v, s=side: f.searchsorted(f.sort(x), v, side=s),
        *((5,), (2, 3)),
    )
call("unique", by_name("unique", return_index=True, return_inverse=True, return_counts=True))
for name in ("unique_all", "unique_counts", "unique_inverse"):
    call(name, by_name(name))
call("unique_values", by_name("unique_values"), numpys=by_name("unique"))

# Shapes

for name in ("ravel", "flip", "transpose", "squeeze"):
    call(name, by_name(name))
call("flatten", by_name("flatten"), numpys=lambda f, x: x.flatten())
call("flatten", by_name("flatten", start_axis=1), (2, 3, 4), numpys=lambda f, x: x.reshape(2, 12))
call("flip", by_name("flip", axis=1))
call("roll", lambda f, x: f.roll(x, 5))
call("roll", lambda f, x: f.roll(x, (1, -2), axis=(0, 1)))
call("repeat", lambda f, x: f.repeat(x, 2))
call("repeat", lambda f, x: f.repeat(x, [1, 0, 2], axis=0))
call("tile", lambda f, x: f.tile(x, (2, 1, 2)))
call("reshape", lambda f, x: f.reshape(x, (2, -1)))
call("permute_dims", lambda f, x: f.permute_dims(x, (1, 0)), numpys=by_name("transpose"))
call("matrix_transpose", by_name("matrix_transpose"), (2, 3, 4))
call("swapaxes", lambda f, x: f.swapaxes(x, 0, -1), (2, 3, 4))
call("moveaxis", lambda f, x: f.moveaxis(x, (0, 1), (-1, 0)), (2, 3, 4))
call("expand_dims", lambda f, x: f.expand_dims(x, (0, 2)))
call("squeeze", lambda f, x: f.squeeze(x, axis=1), (2, 1, 3))
call("broadcast_to", lambda f, x: f.broadcast_to(x, (2, 3, 4)))
call("broadcast_arrays", lambda f, x, y: list(f.broadcast_arrays(x, y)), (3, 1), (4,))
call("concatenate", lambda f, x, y: f.concatenate([x, y], axis=1), (3, 2), (3, 1))
call(
    "concat",
    lambda f, x, y: f.concat([x, y], axis=None),
    *PAIR,
    numpys=lambda f, x, y: f.concatenate([x, y], axis=None),
)
call("stack", lambda f, x, y: f.stack([x, y], axis=-1), (3,), (3,))
call("unstack", by_name("unstack", axis=1), numpys=lambda f, x: tuple(x.T))
call("split", lambda f, x: f.split(x, 2, axis=1))
call("pad", lambda f, x: f.pad(x, ((1, 0), (0, 2))))
call("take", lambda f, x: f.take(x, [2, 0, 0], axis=1))
call("getitem", lambda f, x: f.getitem(x, (0, slice(1, 3))), numpys=lambda f, x: x[0, 1:3])
call(
    "take_along_axis",
    lambda f, x: f.take_along_axis(x, np.array([[0, 2, 1, 1]]), axis=0),
)
for indexing in ("xy", "ij"):
    call("meshgrid", lambda f, *x, i=indexing: list(f.meshgrid(*x, indexing=i)), (2,), (3,), (4,))
for k in (0, 1, -1):
    call("tril", by_name("tril", k=k), (2, 3, 4))
    call("triu", by_name("triu", k=k), (2, 3, 4))
    call("diagonal", by_name("diagonal", offset=k))
    call("trace", by_name("trace", offset=k))
call(
    "scatter_add",
    lambda f, x: f.scatter_add(x, np.array([2, 0, 2]), (4, 4)),
    numpys=lambda f, x: f.stack([x[1], 0 * x[0], x[0] + x[2], 0 * x[0]]).astype(x.dtype),
    kinds="if",
)

# Products and linear algebra

for left, right in (
    ((3,), (3,)),
    ((2, 3), (3, 2)),
    ((2, 3), (2, 3, 2)),
    ((2, 3), (3,)),
    ((), (3,)),
):
    call("dot", by_name("dot"), left, right)
for name in ("matmul", "linalg.matmul"):
    call(name, by_name(name), (2, 3, 4), (4, 2), numpys=by_name("matmul"))
for name in ("outer", "linalg.outer"):
    call(name, by_name(name), (3,), (4,), numpys=by_name("outer"))
call("einsum", lambda f, x, y: f.einsum("ij,j->i", x, y), *PAIR, kinds="iuf")
for name in ("tensordot", "linalg.tensordot"):
    theirs = by_name("tensordot", axes=((1, 0), (0, 1)))
    call(name, by_name(name, axes=((1, 0), (0, 1))), (3, 4), (4, 3, 2), numpys=theirs, kinds="iuf")
for name in ("vecdot", "linalg.vecdot"):
    call(
        name,
        by_name(name, axis=0),
        *((3, 4), (3, 1)),
        numpys=lambda f, x, y: f.einsum("ij,ik->j", x, y),
        kinds="iuf",
    )
call("linalg.matrix_transpose", by_name("linalg.matrix_transpose"), (2, 3))
call("linalg.diagonal", by_name("linalg.diagonal", offset=1), (2, 3, 4))
call("linalg.trace", by_name("linalg.trace", offset=-1), (2, 3, 4))
call(
    "linalg.cross",
    by_name("linalg.cross", axis=0),
    (3, 2),
    (3, 1),
    kinds="if",
    numpys=(lambda f, x, y: f.cross(x, f.broadcast_to(y, x.shape), axis=0)),
)


def regular(f: Any, x: Any) -> Any:
    """A matrix that has an inverse."""
    return x + 9 * f.eye(3, dtype="float64").astype(x.dtype)


for name in ("inv", "det", "cholesky", "slogdet"):
    numpys = by_name(f"linalg.{name}")
    made = lambda f, x, n=numpys: n(f, regular(f, x))  # noqa: E731
    if name == "cholesky":
        made = lambda f, x, n=numpys: n(f, f.matmul(regular(f, x), regular(f, x.mT)))  # noqa: E731
    call(f"linalg.{name}", made, (2, 3, 3), kinds="f")
call("linalg.solve", lambda f, a, b: f.linalg.solve(regular(f, a), b), (3, 3), (3, 2), kinds="f")
call("linalg.solve", lambda f, a, b: f.linalg.solve(regular(f, a), b), (3, 3), (3,), kinds="f")
for n in (-2, -1, 0, 1, 2, 3):
    call(
        "linalg.matrix_power",
        lambda f, x, n=n: f.linalg.matrix_power(regular(f, x), n),
        (3, 3),
        kinds="f",
    )
for order in (0, 1, 2, 3, np.inf, -np.inf, -1, 0.5):
    options = {"ord": order, "axis": 1, "keepdims": True}
    call(
        "linalg.vector_norm",
        by_name("linalg.vector_norm", **options),
        numpys=by_name("linalg.norm", **options),
        kinds="f",
        limits=(1, 4),
    )
for order in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf):
    call("linalg.matrix_norm", by_name("linalg.matrix_norm", ord=order), (2, 3, 4), kinds="f",
         numpys=by_name("linalg.norm", ord=order, axis=(-2, -1)))  # fmt: skip
    for name in ("norm", "linalg.norm"):
        options = {"ord": order, "axis": (2, 0), "keepdims": True}
        call(name, by_name(name, **options), (2, 3, 4), kinds="f",
             numpys=by_name("linalg.norm", **options))  # fmt: skip
for name in ("norm", "linalg.norm"):
    call(name, by_name(name), numpys=by_name("linalg.norm"), kinds="f")
