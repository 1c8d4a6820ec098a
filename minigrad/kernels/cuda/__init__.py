"""Kernels in CUDA C++, launched through CuPy. `KERNELS` says which ops have one.

A kernel has the functions of a page of `minigrad.ops`, without `xp`. Tests compare the two:

    forward(*arrays, **statics)               -> out, saved
    backward(dy, saved, needs, **statics)     -> one gradient (or None) per input array
    backward_into(dy, saved, needs, places, **statics)     (ops with weights; see minigrad.op)
    supports(*arrays, **statics)              -> None, or why the textbook has to run (support.py)

The .cu file beside a module holds what it launches. Importing this package neither imports CuPy nor
compiles anything: the first launch does (`compile.py`). All sums have a fixed order, so results
from the same inputs are bitwise identical on every run.
"""

from types import MappingProxyType
from typing import Any

from minigrad import ops
from minigrad.kernels.cuda import (
    activations,
    adamw,
    attention,
    changes,
    cross_entropy,
    dropout,
    embedding,
    layer_norm,
    linear,
    linear_norm,
    orders,
)
from minigrad.kernels.cuda.compile import Source
from minigrad.kernels.cuda.from_string import cuda_kernel
from minigrad.kernels.cuda.namespace import Namespace
from minigrad.op import Op, kernel
from minigrad.ops.updates.adamw import adamw as adamw_rule
from minigrad.ops.updates.muon import adamw_beside

KERNELS: MappingProxyType[type[Op], Any] = MappingProxyType(
    {
        ops.linear.linear: linear,
        ops.linear_norm.linear_norm: linear_norm,
        ops.activations.relu: activations.relu,
        ops.activations.gelu: activations.gelu,
        ops.embedding.embedding: embedding,
        ops.embedding.embedding_with_positions: embedding.embedding_with_positions,
        ops.layer_norm.layer_norm: layer_norm,
        ops.layer_norm.add_layer_norm: layer_norm.add_layer_norm,
        ops.attention.multi_head_attention: attention.multi_head_attention,
        ops.cross_entropy.cross_entropy: cross_entropy,
        ops.dropout.dropout: dropout,
    }
)
for _op, _pair in KERNELS.items():
    kernel(_op, "gpu")(_pair)
for _rule in (adamw_rule, adamw_beside):
    _rule.kernels["gpu"] = adamw.adamw_step
    _rule.kernels["captured"] = adamw.adamw_step_captured

__all__ = ["KERNELS", "Namespace", "Source", "adamw", "changes", "cuda_kernel", "orders"]
