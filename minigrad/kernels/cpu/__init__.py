"""Kernels on NumPy. `KERNELS` says which ops have one.

A kernel has the two functions of an op of `minigrad.ops`, without `xp`. Tests compare the two:

    forward(*arrays, **statics)               -> out, saved
    backward(dy, saved, needs, **statics)     -> one gradient (or None) per input array

Kernels with weights also have `backward_into`, which writes gradients into output buffers, and
attention has `infer`, which saves nothing for backward (see `minigrad.op`).
Kernels never write into their inputs, and accept any memory order. Most outputs are
*feature-major*: their shape is (..., C), but they are stored as (C, N) with contiguous rows, see
`minigrad.kernels.cpu.layout`.
"""

from types import MappingProxyType
from typing import Any

from minigrad import ops
from minigrad.kernels.cpu import (
    activations,
    adamw,
    attention,
    convolution,
    cross_entropy,
    embedding,
    layer_norm,
    linear,
    rotary,
)
from minigrad.op import Op, kernel
from minigrad.ops.updates.adamw import adamw as adamw_rule
from minigrad.ops.updates.muon import adamw_beside

KERNELS: MappingProxyType[type[Op], Any] = MappingProxyType(
    {
        ops.linear.linear: linear,
        ops.activations.sigmoid: activations.sigmoid,
        ops.activations.silu: activations.silu,
        ops.gated.swiglu: activations.swiglu,
        ops.activations.gelu: activations.gelu,
        ops.trigonometry.tanh: activations.tanh,
        ops.layer_norm.layer_norm: layer_norm,
        ops.layer_norm.add_layer_norm: layer_norm.add_layer_norm,
        ops.layer_norm.rms_norm: layer_norm.rms_norm,
        ops.rotary.rotary: rotary,
        ops.attention.scaled_dot_product_attention: attention,
        ops.attention.multi_head_attention: attention.multi_head_attention,
        ops.grouped_attention.grouped_query_attention: attention.grouped_query_attention,
        ops.convolution.convolution: convolution,
        ops.cross_entropy.cross_entropy: cross_entropy,
        ops.embedding.embedding: embedding,
    }
)
for _op, _pair in KERNELS.items():
    kernel(_op, "cpu")(_pair)
adamw_rule.kernels["cpu"] = adamw.adamw_step
adamw_beside.kernels["cpu"] = adamw.adamw_step_of_scaled
