"""Inputs whose shapes do not fit: every op raises an error that names the op and the shapes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor
from minigrad.engine import apply
from minigrad.ops import TEXTBOOK

# Element-wise functions of one array accept any shape.
ANY_SHAPE = {
    *("power_scalar", "negative", "exp", "log", "sqrt", "sin", "cos", "tanh", "abs", "erf"),
    *("clip", "astype", "relu", "sigmoid", "silu", "gelu", "to_device"),
    *("softplus", "normal_cdf", "log1p", "expm1", "log2", "log10", "clone"),
    *("tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "arcsinh", "arccosh", "arctanh"),
}


def bad(name: str, *shapes: tuple[int, ...], **statics: Any) -> Callable[[], Tensor]:
    """Run an op directly, so that no public function checks the shapes first."""
    return lambda: apply(TEXTBOOK[name], *[mg.ones(shape) for shape in shapes], **statics)


AXIS: dict[str, Any] = {"axis": 2, "keepdims": False}
BAD: dict[str, Callable[[], Tensor]] = {
    "add": bad("add", (2, 3), (4,)),
    "subtract": bad("subtract", (2, 3), (2,)),
    "multiply": bad("multiply", (2, 3), (3, 2)),
    "divide": bad("divide", (2, 3), (4, 1, 2)),
    "power": bad("power", (2,), (3,)),
    "remainder": bad("remainder", (2,), (3,)),
    "logaddexp": bad("logaddexp", (2,), (3,)),
    "hypot": bad("hypot", (2, 3), (2,)),
    "arctan2": bad("arctan2", (2, 3), (2,)),
    "cumsum": bad("cumsum", (2, 3), axis=2),
    "solve": bad("solve", (2, 2), (3, 1)),
    "maximum": bad("maximum", (2,), (3,)),
    "minimum": bad("minimum", (2,), (3,)),
    "clip_between": lambda: mg.clip(mg.ones((2, 3)), mg.ones(2)),
    "where": lambda: mg.where(np.array([True, False]), mg.ones(3), mg.ones((2, 3))),
    "sum": bad("sum", (2, 3), **AXIS),
    "mean": bad("mean", (2, 3), **AXIS),
    "var": bad("var", (2, 3), **AXIS, ddof=0),
    "max": bad("max", (2, 3), **AXIS),
    "min": bad("min", (2, 3), **AXIS),
    "logsumexp": bad("logsumexp", (2, 3), **AXIS),
    "softmax": bad("softmax", (2, 3), axis=2),
    "log_softmax": bad("log_softmax", (2, 3), axis=-3),
    "reshape": bad("reshape", (2, 3), shape=(4,)),
    "transpose": bad("transpose", (2, 3), axes=(0, 0)),
    "broadcast_to": bad("broadcast_to", (2, 3), shape=(2, 4)),
    "concatenate": bad("concatenate", (2, 3), (2, 4), axis=0),
    "pad": bad("pad", (2, 3), widths=((1, 1),) * 3, value=0),
    "getitem": bad("getitem", (2, 3), index=(0, 0, 0)),
    "scatter_add": bad("scatter_add", (2, 3), index=slice(None), shape=(4, 3)),
    "matmul": bad("matmul", (2, 3), (2, 3)),
    "einsum": bad("einsum", (2, 3), (2, 3), subscripts="ij,jk->ik"),
    "linear": lambda: apply(TEXTBOOK["linear"], mg.ones((2, 3)), mg.ones((4, 2)), None),
    "embedding": lambda: apply(TEXTBOOK["embedding"], mg.ones((4, 2)), Tensor([4])),
    "embedding_with_positions": lambda: apply(
        *(TEXTBOOK["embedding_with_positions"], mg.ones((4, 2)), mg.ones((2, 2))),
        Tensor([[0, 1, 2]]),
    ),
    "linear_norm": bad("linear_norm", (2, 3), (4, 3), (4,), (3, 4), (4,), (4,), eps=1e-5),
    "layer_norm": bad("layer_norm", (2, 3), (4,), (4,), eps=1e-5),
    "add_layer_norm": bad("add_layer_norm", (2, 3), (2, 4), (3,), (3,), eps=1e-5),
    "batch_norm": bad("batch_norm", (2, 3), (4,), (4,), eps=1e-5),
    "convolution": bad(
        "convolution",
        (1, 3, 5),
        (4, 2, 3),
        (4,),
        **{"stride": (1,), "padding": (0,), "dilation": (1,), "groups": 1},
    ),
    "rms_norm": bad("rms_norm", (2, 3), (4,), eps=1e-5),
    "scaled_dot_product_attention": bad(
        "scaled_dot_product_attention", (2, 3, 4), (2, 3, 5), (2, 3, 5), causal=False
    ),
    "multi_head_attention": bad("multi_head_attention", (2, 3, 8), num_heads=2, causal=True),
    "grouped_query_attention": bad(
        "grouped_query_attention", (2, 3, 10), num_heads=4, num_kv_heads=2, causal=True
    ),
    "swiglu": bad("swiglu", (2, 3)),
    "rotary": bad("rotary", (2, 3), (2, 1), (2, 1)),
    "cross_entropy": lambda: apply(TEXTBOOK["cross_entropy"], mg.ones((2, 3)), Tensor([0, 1, 2])),
    "dropout": lambda: apply(TEXTBOOK["dropout"], mg.ones((2, 3)), Tensor([True, False]), p=0.5),
}


# For these the public functions check the shapes (see `functions.test_methods`).
SEEN_TO = {"inv", "det", "log_abs_det", "cholesky", "prod", "cumprod", "norm"}
SEEN_TO |= {"singular_values", "svd"}


def test_every_op_has_a_case_or_takes_any_shape() -> None:
    assert set(BAD) | ANY_SHAPE | SEEN_TO == set(TEXTBOOK)
    assert not set(BAD) & ANY_SHAPE


@pytest.mark.parametrize("context", [mg.textbook, mg.enable_grad])
@pytest.mark.parametrize("name", BAD)
def test_shapes_that_do_not_fit(name: str, context: Any) -> None:
    kind = IndexError if name in ("getitem", "embedding", "cross_entropy") else ShapeError
    with context(), pytest.raises(kind) as error:
        BAD[name]()
    assert str(error.value).startswith(f"{name} of shapes (")
