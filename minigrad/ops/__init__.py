"""The textbook: every op as two pure array functions, forward and backward, side by side.

    forward(xp, *arrays, **statics)             -> out, saved
    backward(xp, dy, saved, needs, **statics)   -> one gradient (or None) per input array

`xp` is NumPy, CuPy, or `minigrad.functions`: the same lines run on arrays and, for higher
derivatives, on tensors. They only use functions that all three have, and never write in place.
`needs[i]` says whether input i wants a gradient. `saved` is all that backward gets from forward.

`TEXTBOOK` has every op of the pages below by its name.
"""

from types import MappingProxyType

from minigrad.op import Op
from minigrad.ops import (
    activations,
    attention,
    batch_norm,
    convolution,
    cross_entropy,
    cumulative,
    dropout,
    elementwise,
    embedding,
    gated,
    grouped_attention,
    indexing,
    layer_norm,
    linear,
    linear_algebra,
    linear_norm,
    matmul,
    reduce,
    rotary,
    shape,
    transfer,
    trigonometry,
)

PAGES = (
    *(elementwise, activations, gated, trigonometry),
    *(reduce, cumulative),
    *(shape, indexing, transfer),
    *(matmul, linear_algebra),
    *(linear, linear_norm, embedding, layer_norm, batch_norm, convolution),
    *(attention, grouped_attention, rotary),
    *(cross_entropy, dropout),
)
TEXTBOOK: MappingProxyType[str, type[Op]] = MappingProxyType(
    {
        op.name: op
        for page in PAGES
        for op in vars(page).values()
        if isinstance(op, type) and issubclass(op, Op) and op.__module__ == page.__name__
    }
)
