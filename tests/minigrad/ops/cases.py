"""Inputs for testing every op of the textbook, with its first and second derivatives.

A case is a function of tensors with the float64 arrays to call it with; float arrays are
differentiated. Shapes are small and odd, have axes of size 1, and broadcast. `test_gradients.py`
fails for an op without a case, `test_registry.py` for a public function with a derivative but
without a case. Functions made of others are in `cases_of_functions`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import Tensor
from minigrad.device import CPU
from minigrad.engine import apply
from minigrad.nn import functional as F
from minigrad.ops import TEXTBOOK
from tests.minigrad.ops import cases_of_functions
from tests.minigrad.ops.registry import CASES, Case, case, distinct, positive

__all__ = ["CASES", "Case", "cases_of_functions"]

# Element-wise

BROADCASTS = {
    "equal shapes": ((3, 5), (3, 5)),
    "a row": ((3, 5), (5,)),
    "both stretched": ((4, 1, 3), (2, 1)),
    "a number": ((), (2, 3)),
    "size 1 beside nothing": ((1, 1), ()),
}
for label, (left, right) in BROADCASTS.items():
    case("add", label, mg.add, left, right)
    case("subtract", label, mg.subtract, left, right)
    case("multiply", label, mg.multiply, left, right)
    case("divide", label, mg.divide, left, positive(*right))
    case("power", label, mg.power, positive(*left), right)
    case("maximum", label, mg.maximum, left, right)
    case("logaddexp", label, mg.logaddexp, left, right)
    case("hypot", label, mg.hypot, left, right)
    case("arctan2", label, mg.arctan2, left, right)
    case("remainder", label, mg.remainder, left, positive(*right))
    case("minimum", label, mg.minimum, left, right)
    case(
        "where",
        label,
        lambda x, y: mg.where(np.array([True, False, True])[: x.shape[-1] if x.ndim else 1], x, y),
        (*left[:-1], 3) if left else (3,),
        (*right[:-1], 1) if right else (),
    )
for op in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
    case(op, "one tensor as both inputs", lambda x, op=op: getattr(mg, op)(x, x), positive(2, 3))
case("power", "one tensor as both inputs", lambda x: mg.power(x, x), positive(2, 3))
case("power", "a number to a tensor", lambda y: 2.5**y, (3, 2))

for exponent in (2, 3, 1, 0.5, -1.5, 0):
    case("power_scalar", f"{exponent}", lambda x, p=exponent: x**p, positive(3, 3))
case("power_scalar", "a square of negatives", lambda x: x**2, (5,))

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "negative": mg.negative,
    "clone": mg.clone,
    "tan": mg.tan,
    "arctan": mg.arctan,
    "sinh": mg.sinh,
    "cosh": mg.cosh,
    "arcsinh": mg.arcsinh,
    "exp": mg.exp,
    "expm1": mg.expm1,
    "sin": mg.sin,
    "cos": mg.cos,
    "tanh": mg.tanh,
    "abs": mg.abs,
    "erf": mg.erf,
    "normal_cdf": mg.normal_cdf,
    "relu": mg.relu,
    "sigmoid": mg.sigmoid,
    "softplus": mg.softplus,
    "silu": mg.silu,
}
for op, function in UNARY.items():
    for shape in ((3, 5), (1,), (), (2, 1, 3)):
        case(op, f"{shape}", function, shape)
for shape in ((3, 5), (1,), ()):
    case("log", f"{shape}", mg.log, positive(*shape))
    case("log1p", f"{shape}", mg.log1p, positive(*shape))
    case("log2", f"{shape}", mg.log2, positive(*shape))
    case("log10", f"{shape}", mg.log10, positive(*shape))
    for op in ("arcsin", "arccos", "arctanh"):
        case(op, f"{shape}", getattr(mg, op), np.asarray(positive(*shape) - 1.15))
    case("arccosh", f"{shape}", mg.arccosh, np.asarray(positive(*shape) + 1))
    case("softplus", f"logsigmoid {shape}", mg.logsigmoid, shape, public="logsigmoid")
    case("softplus", f"beta {shape}", lambda x: mg.softplus(x, 2.5), shape)
    case("sqrt", f"{shape}", mg.sqrt, positive(*shape))
    for approximate in ("none", "tanh"):
        case("gelu", f"{approximate} {shape}", lambda x, a=approximate: mg.gelu(x, a), shape)
for shape in ((3, 6), (2,), (2, 1, 4)):
    case("swiglu", f"{shape}", F.swiglu, shape)
case("clip", "two sides", lambda x: mg.clip(x, -0.5, 0.7), (4, 5))
case("clip", "below only", lambda x: mg.clip(x, min=0.1), (7,))
case("clip", "above only", lambda x: mg.clip(x, max=0.1), ())
case("clip_between", "two tensors", mg.clip, distinct(4, 5), (5,), 2.0 + positive(4, 1))
case("clip_between", "below only", lambda x, low: mg.clip(x, low), distinct(7), ())
case("clip_between", "above only", lambda x, high: mg.clip(x, None, high), distinct(2, 3), (3,))
case("clip_between", "crossed", mg.clip, (6,), 1 + positive(6), -positive(1))
case("logaddexp", "equal numbers", lambda x: mg.logaddexp(x, x), (3,))
case(
    "astype",
    "to the same precision and back",
    lambda x: apply(TEXTBOOK["astype"], x, dtype="f8"),
    (2, 3),
)

# Reductions

AXES: tuple[Any, ...] = (None, 0, -1, (0, 2), (-1, 0, 1))
for axis in AXES:
    for keepdims in (False, True):
        options = {"axis": axis, "keepdims": keepdims}
        for op in ("sum", "mean", "var", "logsumexp"):
            case(op, f"{options}", lambda x, o=options, op=op: getattr(mg, op)(x, **o), (2, 3, 3))
        for op in ("max", "min"):
            case(
                op,
                f"{options}",
                lambda x, o=options, op=op: getattr(mg, op)(x, **o),
                distinct(2, 3, 3),
            )
for op in ("sum", "mean", "max", "min", "logsumexp"):
    case(op, "a number", lambda x, op=op: getattr(mg, op)(x), ())
    case(op, "an axis of size 1", lambda x, op=op: getattr(mg, op)(x, 1), (3, 1))
case("var", "ddof 1", lambda x: mg.var(x, (0, 2), ddof=1), (2, 3, 3))
for op in ("softmax", "log_softmax"):
    for axis, shape in ((-1, (3, 5)), (0, (3, 2)), (1, (2, 3, 2)), (-1, (4, 1))):
        case(op, f"{axis} {shape}", lambda x, a=axis, op=op: getattr(mg, op)(x, a), shape)

# Shapes and indices

case("reshape", "(6,) to (2, 3)", lambda x: mg.reshape(x, (2, 3)), (6,))
case("reshape", "with -1", lambda x: mg.reshape(x, (-1, 2)), (2, 3, 2))
case("reshape", "to a number", lambda x: mg.reshape(x, ()), (1, 1))
case("transpose", "reversed", mg.transpose, (2, 3, 4))
case("transpose", "a cycle", lambda x: mg.transpose(x, (2, 0, 1)), (2, 3, 4))
case("transpose", "swapaxes", lambda x: mg.swapaxes(x, 0, -1), (2, 1, 3), public="swapaxes")
case("broadcast_to", "new and stretched axes", lambda x: mg.broadcast_to(x, (2, 3, 4)), (3, 1))
case("broadcast_to", "a number", lambda x: mg.broadcast_to(x, (2, 3)), ())
case("broadcast_to", "its own shape", lambda x: mg.broadcast_to(x, (3,)), (3,))
case("concatenate", "three", lambda *xs: mg.concatenate(xs, 1), (2, 1), (2, 3), (2, 2))
case("concatenate", "one twice", lambda x: mg.concatenate([x, x], -1), (2, 3))
case("concatenate", "stack", lambda *xs: mg.stack(xs, 1), (2, 3), (2, 3), public="stack")
case("concatenate", "one alone", lambda x: mg.concatenate([x]), (3,))
case("pad", "a pair for each axis", lambda x: mg.pad(x, ((1, 2), (0, 1))), (2, 3))
case("pad", "one width, a value", lambda x: mg.pad(x, 1, constant_values=7.0), (2, 2))

INDICES: dict[str, Any] = {
    "an integer": 1,
    "a negative integer": -1,
    "slices": (slice(1, None), slice(None, None, 2)),
    "backwards": (slice(None), slice(None, None, -1)),
    "None and Ellipsis": (None, ..., 0),
    "an integer array": np.array([2, 0]),
    "a list": [0, 2],
    "repeated": np.array([1, 1, 2, 1]),
    "negative and repeated": np.array([[-1, 0], [2, -3]]),
    "a boolean mask": np.array([True, False, True]),
    "a boolean mask of all axes": np.eye(3, 4, dtype=bool),
    "two integer arrays": (np.array([0, 2, 0]), np.array([1, 3, 1])),
    "arrays that broadcast": (np.array([[0], [2]]), np.array([1, 1, 3])),
    "a slice and an array": (slice(None, 2), np.array([3, 3, 0])),
    "an integer and an array": (1, np.array([0, 0])),
    "an array, None, a slice": (np.array([1, 1]), None, slice(1, 3)),
    "nothing is chosen": slice(2, 2),
    "an empty tuple": (),
}
for label, index in INDICES.items():
    case("getitem", label, lambda x, i=index: x[i], (3, 4))
    chosen = np.empty((3, 4))[index]
    case("scatter_add", label, lambda x, i=index: mg.scatter_add(x, i, (3, 4)), chosen.shape)
case("getitem", "take", lambda x: mg.take(x, [[1, 1], [0, 2]], 1), (2, 3), public="take")
case("to_device", "to the device it is on", lambda x: mg.to_device(x, CPU), (2, 3))

# Matmuls and layers

for left, right in (
    ((3, 2), (2, 4)),
    ((1, 1), (1, 1)),
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((3,), (2, 3, 2)),
    ((2, 2, 3), (3,)),
    ((2, 3, 2), (2, 2, 3)),
    ((2, 3, 2), (2, 3)),
    ((2, 1, 3, 2), (3, 2, 1)),
):
    case("matmul", f"{left} @ {right}", mg.matmul, left, right)
case("matmul", "with itself", lambda x: x @ x, (3, 3))
case("matmul", "with its transpose", lambda x: x @ x.T, (2, 3))

for subscripts, *shapes in (
    ("ij,jk->ik", (2, 3), (3, 2)),
    ("bij,bjk->bik", (2, 2, 3), (2, 3, 1)),
    ("i,j->ij", (2,), (3,)),
    ("ij->", (2, 3)),
    ("ij->j", (2, 3)),
    ("ii->", (3, 3)),
    ("ii->i", (3, 3)),
    ("iji->j", (3, 2, 3)),
    ("ii,i->i", (3, 3), (3,)),
    ("...ij,...jk->...ik", (2, 2, 3), (3, 2)),
    ("...ij,...jk->...ik", (2, 1, 2, 3), (3, 3, 2)),
    ("ij,jk", (2, 3), (3, 2)),
    ("ba", (2, 3)),
    ("...i,...i", (2, 3), (2, 3)),
    ("ij,j,i->", (2, 3), (3,), (2,)),
    ("ij,ij->ij", (2, 3), (1, 3)),
    ("ij,ij->i", (2, 3), (2, 1)),
    ("i,->i", (3,), ()),
):
    case("einsum", f"{subscripts} {shapes}", lambda *xs, s=subscripts: mg.einsum(s, *xs), *shapes)
case("einsum", "one tensor twice", lambda x: mg.einsum("ij,kj->ik", x, x), (2, 3))

for activation in (None, "relu"):
    linear = lambda x, w, b=None, a=activation: F.linear(x, w, b, activation=a)  # noqa: E731
    case("linear", f"{activation}", linear, (5, 3), (4, 3), (4,))
    case("linear", f"{activation} without bias", linear, (2, 3, 3), (2, 3))
    case("linear", f"{activation} of a vector", linear, (3,), (2, 3), (2,))
    case("linear", f"{activation} of sizes 1", linear, (1, 1), (1, 1), (1,))
    case("linear", f"{activation} with four axes", linear, (2, 1, 3, 2), (3, 2), (3,))

ids = np.array([[1, 3, 1], [0, 1, 4]])
case("embedding", "a table of ids", lambda w: F.embedding(w, ids), (5, 3))
case("embedding", "one id", lambda w: F.embedding(w, np.array(2)), (4, 2))
case("embedding", "no id", lambda w: F.embedding(w, np.zeros((0, 2), int)), (4, 2))
case("embedding", "vectors of size 1", lambda w: F.embedding(w, np.array([0, 0])), (1, 1))


def at_places(weight: Tensor, positions: Tensor, shape: tuple[int, ...] = (2, 4)) -> Tensor:
    places = Tensor(np.arange(np.prod(shape)).reshape(shape) % len(weight), device=weight.device)
    return apply(TEXTBOOK["embedding_with_positions"], weight, positions, places)


case("embedding_with_positions", "fewer places", at_places, (3, 2), (6, 2))
case("embedding_with_positions", "all places", at_places, (9, 1), (4, 1))
case("embedding_with_positions", "one", lambda w, p: at_places(w, p, (3,)), (2, 3), (3, 3))


def linear_norm(*tensors: Tensor | None) -> Tensor:
    return apply(TEXTBOOK["linear_norm"], *tensors, eps=1e-5)


case("linear_norm", "a matrix", linear_norm, (3, 4), (5, 4), (5,), (3, 5), (5,), (5,))
case("linear_norm", "rows of rows", linear_norm, (2, 3, 1), (4, 1), (4,), (2, 3, 4), (4,), (4,))
case(
    *("linear_norm", "no vectors", lambda x, w, r: linear_norm(x, w, None, r, None, None)),
    *((2, 3), (4, 3), (2, 4)),
)

layer_norm: Callable[..., Tensor] = lambda x, w=None, b=None: F.layer_norm(x, w, b)  # noqa: E731
add_norm: Callable[..., Tensor] = lambda x, r, w=None, b=None: F.add_layer_norm(x, r, w, b)  # noqa: E731
rms_norm: Callable[..., Tensor] = lambda x, w=None: F.rms_norm(x, w)  # noqa: E731
for shape in ((4, 5), (2, 3, 3), (5,), (1, 2), (2, 1, 2, 3)):
    size = shape[-1:]
    case("layer_norm", f"{shape}", layer_norm, shape, size, size)
    case("add_layer_norm", f"{shape}", add_norm, shape, shape, size, size)
    case("rms_norm", f"{shape}", rms_norm, shape, size)
for label, tail in (("without bias", [(5,)]), ("without weight and bias", [])):
    case("layer_norm", label, layer_norm, (3, 5), *tail)
    case("add_layer_norm", label, add_norm, (3, 5), (3, 5), *tail)
case("layer_norm", "bias alone", lambda x, b: F.layer_norm(x, None, b), (3, 5), (5,))
case("rms_norm", "without weight", rms_norm, (3, 5))
case("add_layer_norm", "one tensor twice", lambda x, w, b: add_norm(x, x, w, b), (3, 4), (4,), (4,))
case("rms_norm", "vectors of size 1", rms_norm, (3, 1), (1,))

for causal in (False, True):
    attention = lambda q, k, v, c=causal: F.scaled_dot_product_attention(q, k, v, causal=c)  # noqa: E731
    name = "causal" if causal else "full"
    op = "scaled_dot_product_attention"
    case(op, f"{name} with heads", attention, (2, 2, 3, 2), (2, 2, 3, 2), (2, 2, 3, 2))
    case(op, f"{name}, fewer queries", attention, (2, 3), (5, 3), (5, 2))
    case(op, f"{name}, one query", attention, (1, 1, 4), (1, 3, 4), (1, 3, 4))
    case(op, f"{name}, sizes 1", attention, (1, 1), (1, 1), (1, 1))
    case(op, f"{name}, one tensor", lambda x, f=attention: f(x, x, x), (1, 4, 3))
    for heads, shape in ((1, (2, 3, 6)), (2, (1, 5, 12)), (3, (2, 1, 9))):
        case(
            "multi_head_attention",
            f"{name}, {heads} heads, {shape}",
            lambda x, h=heads, c=causal: F.multi_head_attention(x, num_heads=h, causal=c),
            shape,
        )
    for heads, shared, shape in ((2, 1, (2, 3, 12)), (6, 2, (1, 5, 10)), (3, 1, (2, 1, 5))):
        case(
            "grouped_query_attention",
            f"{name}, {heads} heads on {shared}, {shape}",
            lambda x, h=heads, k=shared, c=causal: F.multi_head_attention(
                x, num_heads=h, num_kv_heads=k, causal=c
            ),
            shape,
        )
case(
    "scaled_dot_product_attention",
    "a scale of its own",
    lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
    (2, 2),
    (3, 2),
    (3, 1),
)

CONVOLUTIONS: dict[str, tuple[Any, ...]] = {
    "plain": ((2, 3, 7), (4, 3, 3), {}),
    "stride, padding, dilation": ((2, 2, 9), (3, 2, 3), {"stride": 2, "padding": 2, "dilation": 3}),
    "groups": ((2, 4, 5), (6, 2, 2), {"groups": 2}),
    "a channel a group": ((1, 3, 5), (3, 1, 2), {"groups": 3, "padding": 1}),
    "sizes 1": ((1, 1, 1), (1, 1, 1), {}),
    "two axes": ((2, 3, 5, 4), (4, 3, 3, 2), {}),
    "two axes, all settings": (
        (1, 4, 6, 7),
        (2, 2, 2, 3),
        {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2},
    ),
    "a kernel of 1": ((2, 3, 3, 2), (5, 3, 1, 1), {}),
    "stride beyond the kernel": ((2, 1, 8), (2, 1, 2), {"stride": 3}),
}
for label, (x_shape, w_shape, settings) in CONVOLUTIONS.items():
    convolve = F.conv1d if len(x_shape) == 3 else F.conv2d
    convolve = lambda x, w, b=None, f=convolve, s=settings: f(x, w, b, **s)  # noqa: E731
    case("convolution", label, convolve, x_shape, w_shape, w_shape[:1])
case("convolution", "without bias", lambda x, w: F.conv1d(x, w), (2, 2, 4), (3, 2, 2))
case("convolution", "one tensor as both", lambda x: F.conv1d(x, x, padding=1), (2, 2, 3))

batch_norm: Callable[..., Tensor] = lambda x, w=None, b=None: F.batch_norm(  # noqa: E731
    x, weight=w, bias=b, training=True
)
for shape in ((5, 3), (4, 2, 3), (2, 3, 2, 3), (3, 1)):
    case("batch_norm", f"{shape}", batch_norm, shape, shape[1:2], shape[1:2])
case("batch_norm", "without weight and bias", batch_norm, (4, 3))

angles = np.linspace(0.1, 2, 6).reshape(3, 2)
for shape in ((3, 4), (2, 3, 4), (2, 1, 3, 4)):
    case("rotary", f"{shape}", lambda x: F.rotary(x, np.cos(angles), np.sin(angles)), shape)
case(
    *("rotary", "some heads", lambda x: F.rotary(x, np.cos(angles), np.sin(angles), heads=3)),
    (2, 5, 4),
)
case("rotary", "one pair", lambda x: F.rotary(x, np.cos([0.5]), np.sin([0.5])), (3, 2))

targets = np.array([2, 0, 4, 2])
for reduction in ("mean", "sum", "none"):
    for smoothing in (0.0, 0.1):
        for ignored in (-100, 2):
            case(
                "cross_entropy",
                f"{reduction}, smoothing {smoothing}, ignoring {ignored}",
                lambda z, r=reduction, s=smoothing, i=ignored: F.cross_entropy(
                    z, targets, reduction=r, label_smoothing=s, ignore_index=i
                ),
                (4, 5),
            )
case("cross_entropy", "three axes", lambda z: F.cross_entropy(z, ids), (2, 3, 5))
case("cross_entropy", "one row", lambda z: F.cross_entropy(z, np.array(1)), (3,))
case("cross_entropy", "one class", lambda z: F.cross_entropy(z + z * z, np.array([0])), (1, 1))

for reduction in ("mean", "sum", "none"):
    truth = np.array([[1.0, 0.0, 0.3], [0.0, 1.0, 0.9]])
    binary = lambda z, t=truth, w=None, p=None, r=reduction: F.binary_cross_entropy_with_logits(  # noqa: E731
        z, t, w, pos_weight=p, reduction=r
    )
    case("softplus", f"binary cross-entropy, {reduction}", binary, (2, 3))
    case(
        "softplus",
        f"binary cross-entropy, {reduction}, weights and targets",
        binary,
        (2, 3),
        truth,
        positive(2, 1),
        positive(3),
    )

keep = np.random.default_rng(0).random((3, 4)) < 0.7
case("dropout", "a mask", lambda x: apply(TEXTBOOK["dropout"], x, Tensor(keep), p=0.3), (3, 4))
