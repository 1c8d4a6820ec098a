"""Array functions on tensors, under NumPy's names.

This package is also an array namespace: a textbook op that runs with `xp = minigrad.functions`
works on tensors and is differentiated as it runs.
"""

from minigrad.functions.creation import (
    arange,
    asarray,
    default_device,
    eye,
    from_dlpack,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from minigrad.functions.elementwise import (
    abs,
    add,
    astype,
    clip,
    cos,
    divide,
    equal,
    erf,
    exp,
    gelu,
    greater,
    greater_equal,
    isfinite,
    less,
    less_equal,
    log,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    power,
    relu,
    sigmoid,
    sign,
    silu,
    sin,
    sqrt,
    stop_gradient,
    subtract,
    tanh,
    where,
)
from minigrad.functions.products import einsum, matmul
from minigrad.functions.reduce import (
    argmax,
    argmin,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    softmax,
    sum,
    var,
)
from minigrad.functions.shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    getitem,
    pad,
    reshape,
    scatter_add,
    split,
    squeeze,
    stack,
    swapaxes,
    take,
    to_device,
    transpose,
)

__all__ = [name for name in dir() if not name.startswith("_")]
