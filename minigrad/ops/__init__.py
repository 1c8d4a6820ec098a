"""The textbook: every op as two pure array functions, forward and backward, side by side.

    forward(xp, *arrays, **statics)             -> out, saved
    backward(xp, dy, saved, needs, **statics)   -> one gradient (or None) per input array

`xp` is NumPy, CuPy, or `minigrad.functions`: the same lines run on arrays and, for higher
derivatives, on tensors. They only use functions that all of them have, and never write in place.
`needs[i]` says whether input i wants a gradient. All state passes through `saved`.
"""

from types import MappingProxyType

from minigrad.op import Op
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
    linear_norm,
    matmul,
    reduce,
    rotary,
    shape,
    transfer,
)

TEXTBOOK: MappingProxyType[str, type[Op]] = MappingProxyType(
    {
        op.name: op
        for op in (
            # element-wise
            elementwise.add,
            elementwise.subtract,
            elementwise.multiply,
            elementwise.divide,
            elementwise.power,
            elementwise.power_scalar,
            elementwise.negative,
            elementwise.exp,
            elementwise.expm1,
            elementwise.log,
            elementwise.log1p,
            elementwise.sqrt_,
            elementwise.sin,
            elementwise.cos,
            elementwise.tanh,
            elementwise.abs_,
            elementwise.erf,
            elementwise.normal_cdf,
            elementwise.maximum,
            elementwise.minimum,
            elementwise.clip,
            elementwise.clip_between,
            elementwise.where,
            elementwise.astype,
            elementwise.relu,
            elementwise.sigmoid,
            elementwise.softplus,
            elementwise.silu,
            elementwise.gelu,
            # reductions
            reduce.sum_,
            reduce.mean,
            reduce.var,
            reduce.max_,
            reduce.min_,
            reduce.logsumexp,
            reduce.softmax,
            reduce.log_softmax,
            # shapes and indices
            shape.reshape,
            shape.transpose,
            shape.broadcast_to,
            shape.concatenate,
            shape.pad,
            indexing.getitem,
            indexing.scatter_add,
            transfer.to_device,
            # matrix products and layers
            matmul.matmul,
            matmul.einsum,
            linear.linear,
            linear_norm.linear_norm,
            embedding.embedding,
            embedding.embedding_with_positions,
            layer_norm.layer_norm,
            layer_norm.add_layer_norm,
            layer_norm.rms_norm,
            batch_norm.batch_norm,
            convolution.convolution,
            attention.scaled_dot_product_attention,
            attention.multi_head_attention,
            rotary.rotary,
            cross_entropy.cross_entropy,
            dropout.dropout,
        )
    }
)
