"""The textbook: every op as two pure array functions, forward and backward, side by side.

    forward(xp, *arrays, **statics)             -> out, saved
    backward(xp, dy, saved, needs, **statics)   -> one gradient (or None) per input array

`xp` is NumPy, CuPy, or `minigrad.functions`: the same lines run on arrays and, for higher
derivatives, on tensors. They only use functions that all of them have, and never write in place.
`needs[i]` says whether input i wants a gradient. All state passes through `saved`.
"""

from types import MappingProxyType
from typing import Any

from minigrad.ops import (
    attention,
    batch_norm,
    convolution,
    cross_entropy,
    dropout,
    elementwise,
    embedding,
    indexing,
    layer_norm,
    linear,
    matmul,
    reduce,
    rotary,
    shape,
    transfer,
)

TEXTBOOK: MappingProxyType[str, Any] = MappingProxyType(
    {
        # element-wise
        "add": elementwise.add,
        "subtract": elementwise.subtract,
        "multiply": elementwise.multiply,
        "divide": elementwise.divide,
        "power": elementwise.power,
        "power_scalar": elementwise.power_scalar,
        "negative": elementwise.negative,
        "exp": elementwise.exp,
        "expm1": elementwise.expm1,
        "log": elementwise.log,
        "log1p": elementwise.log1p,
        "sqrt": elementwise.sqrt_,
        "sin": elementwise.sin,
        "cos": elementwise.cos,
        "tanh": elementwise.tanh,
        "abs": elementwise.abs_,
        "erf": elementwise.erf,
        "normal_cdf": elementwise.normal_cdf,
        "maximum": elementwise.maximum,
        "minimum": elementwise.minimum,
        "clip": elementwise.clip,
        "clip_between": elementwise.clip_between,
        "where": elementwise.where,
        "astype": elementwise.astype,
        "relu": elementwise.relu,
        "sigmoid": elementwise.sigmoid,
        "softplus": elementwise.softplus,
        "silu": elementwise.silu,
        "gelu": elementwise.gelu,
        # reductions
        "sum": reduce.sum_,
        "mean": reduce.mean,
        "var": reduce.var,
        "max": reduce.max_,
        "min": reduce.min_,
        "logsumexp": reduce.logsumexp,
        "softmax": reduce.softmax,
        "log_softmax": reduce.log_softmax,
        # shapes and indices
        "reshape": shape.reshape,
        "transpose": shape.transpose,
        "broadcast_to": shape.broadcast_to,
        "concatenate": shape.concatenate,
        "pad": shape.pad,
        "getitem": indexing.getitem,
        "scatter_add": indexing.scatter_add,
        "to_device": transfer,
        # matrix products and layers
        "matmul": matmul.matmul,
        "einsum": matmul.einsum,
        "linear": linear,
        "embedding": embedding,
        "layer_norm": layer_norm,
        "add_layer_norm": layer_norm.add_layer_norm,
        "rms_norm": layer_norm.rms_norm,
        "batch_norm": batch_norm.batch_norm,
        "convolution": convolution.convolution,
        "scaled_dot_product_attention": attention,
        "multi_head_attention": attention.multi_head_attention,
        "rotary": rotary,
        "cross_entropy": cross_entropy,
        "dropout": dropout,
    }
)

# Ops that only choose or move numbers: they are exact in any dtype, and run in the one they get.
EXACT = frozenset(
    {
        "negative",
        "abs",
        "maximum",
        "minimum",
        "where",
        "astype",
        "relu",
        "max",
        "min",
        "reshape",
        "transpose",
        "broadcast_to",
        "concatenate",
        "pad",
        "getitem",
        "to_device",
    }
)

# Ops whose result can share memory with their first input.
VIEWS = frozenset({"reshape", "transpose", "broadcast_to", "getitem"})
