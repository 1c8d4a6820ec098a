"""The layers as functions: no state, every array an argument.

Tensors, arrays and lists are accepted. Dtypes follow `minigrad.dtypes`: integers get the dtype of
the weights, and an array of float64 beside weights of float32 makes the result float64 (convert it
with `.astype(np.float32)`, which is twice as fast).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from minigrad import ops
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions import (
    equal,
    expand_dims,
    gelu,
    logsigmoid,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    stop_gradient,
    tanh,
    where,
)
from minigrad.functions.convert import as_floats
from minigrad.hints import missing_name
from minigrad.nn.checks import (
    check_ids,
    check_probability,
    check_reduction,
    check_rng,
    row_of_padding,
    what_targets_are,
)
from minigrad.nn.convolution import conv1d, conv2d
from minigrad.nn.heads import (
    multi_head_attention,
    rotary,
    scaled_dot_product_attention,
    with_kernel,
)
from minigrad.nn.losses import (
    binary_cross_entropy_with_logits,
    huber_loss,
    l1_loss,
    mse_loss,
    nll_loss,
    weighted_cross_entropy,
)
from minigrad.nn.normalization import batch_norm, group_norm
from minigrad.nn.pooling import avg_pool1d, avg_pool2d, max_pool1d, max_pool2d
from minigrad.random import Generator
from minigrad.tensor import Tensor

__all__ = [
    "add_layer_norm",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "group_norm",
    "huber_loss",
    "l1_loss",
    "layer_norm",
    "linear",
    "logsigmoid",
    "max_pool1d",
    "max_pool2d",
    "mse_loss",
    "multi_head_attention",
    "nll_loss",
    "relu",
    "rms_norm",
    "rotary",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "swiglu",
    "tanh",
]


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = None
) -> Tensor:
    """x Wᵀ + b, followed by max(·, 0) if `activation` is "relu". See `minigrad.ops.linear`.

    Args:
        x: (..., C_in).
        weight: (C_out, C_in).
        bias: (C_out,) or None.

    Returns:
        (..., C_out)

    Raises:
        ShapeError: the sizes do not fit.
    """
    x, weight, bias = as_floats(x, weight, bias)
    if activation not in (None, "relu"):
        raise ValueError(f'linear: activation must be None or "relu", not {activation!r}')
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: x of shape {x.shape} does not fit weight of shape {weight.shape}: the last "
            "axis of x must be the weight's second (C_in)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"linear: bias of shape {bias.shape} for weight of shape {weight.shape}")
    return apply(ops.linear.linear, x, weight, bias, activation=activation)


def embedding(
    weight: Tensor,
    ids: Any,
    positions: Tensor | None = None,
    *,
    padding_idx: int | None = None,
) -> Tensor:
    """Rows of a table, by id. See `minigrad.ops.embedding`.

    Args:
        weight: (V, C).
        ids: integers (...), an array or a tensor.
        positions: (L, C), of which row t is added at position t of each sequence (the last axis of
            the ids, up to L). On a GPU this is part of the same kernel.
        padding_idx: an id whose row gets no gradient here; a negative number counts from the end.

    Returns:
        (..., C)

    Raises:
        IndexError: an id is negative or not below V (checked on the CPU), or padding_idx is no row.
        TypeError: the ids are not integers.
        ShapeError: a table does not have two axes, or sequences are longer than L.
    """
    (weight,) = as_floats(weight)
    if weight.ndim != 2:
        raise ShapeError(f"embedding: the table must be (V, C), not {weight.shape}")
    ids = _as_ids(ids, weight)
    check_ids(ids.array, weight.shape[0], "embedding")
    padding = None if padding_idx is None else row_of_padding(padding_idx, weight.shape[0])
    if positions is None:
        return _rows(weight, ids, padding)
    if positions.ndim != 2 or not ids.ndim or positions.shape[0] < ids.shape[-1]:
        raise ShapeError(f"embedding: positions {positions.shape} for ids of shape {ids.shape}")
    if weight.device.kind == "gpu" and padding is None:
        return apply(ops.embedding.embedding_with_positions, weight, positions, ids)
    return _rows(weight, ids, padding) + positions[: ids.shape[-1]]


def _rows(weight: Tensor, ids: Tensor, padding: int | None) -> Tensor:
    rows = apply(ops.embedding.embedding, weight, ids)
    if padding is None or not rows.requires_grad:
        return rows
    return where(expand_dims(equal(ids, padding), -1), stop_gradient(rows), rows)


def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float = 1e-5
) -> Tensor:
    """Zero mean and unit variance along the last axis. See `minigrad.ops.layer_norm`.

    Args:
        x: (..., C); weight, bias: (C,) or None; eps: added to the variance.

    Raises:
        ShapeError: weight or bias does not have C elements.
    """
    x, weight, bias = as_floats(x, weight, bias)
    _check_channels("layer_norm", x, weight, bias)
    return apply(ops.layer_norm.layer_norm, x, weight, bias, eps=eps)


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float = 1e-5
) -> Tensor:
    """layer_norm(x + residual) in one op; both have shape (..., C)."""
    x, residual, weight, bias = as_floats(x, residual, weight, bias)
    if x.shape != residual.shape:
        raise ShapeError(f"add_layer_norm: x is {x.shape} but the residual {residual.shape}")
    _check_channels("add_layer_norm", x, weight, bias)
    return apply(ops.layer_norm.add_layer_norm, x, residual, weight, bias, eps=eps)


def linear_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    *,
    eps: float = 1e-5,
) -> Tensor:
    """layer_norm(linear(x) + residual, gain, shift): the end of a post-norm block.

    On a GPU it is one op; see `minigrad.ops.linear_norm`.

    Raises:
        ShapeError: the shapes do not fit.
    """
    if x.device.kind != "gpu":
        return add_layer_norm(linear(x, weight, bias), residual, gain, shift, eps=eps)
    x, weight, bias, residual, gain, shift = as_floats(x, weight, bias, residual, gain, shift)
    return apply(ops.linear_norm.linear_norm, x, weight, bias, residual, gain, shift, eps=eps)


def rms_norm(x: Tensor, weight: Tensor | None, *, eps: float = 1e-5) -> Tensor:
    """Unit root mean square along the last axis. See `minigrad.ops.layer_norm.rms_norm`."""
    x, weight = as_floats(x, weight)
    _check_channels("rms_norm", x, weight, None)
    return apply(ops.layer_norm.rms_norm, x, weight, eps=eps)


def swiglu(x: Tensor) -> Tensor:
    """silu(g)·u of x = [g | u], (..., 2F) -> (..., F). See `minigrad.ops.gated.swiglu`.

    Raises:
        ShapeError: the last axis is odd.
    """
    (x,) = as_floats(x)
    return apply(with_kernel(ops.gated.swiglu, x), x)


def cross_entropy(
    logits: Tensor,
    targets: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Softmax and cross-entropy in one, in nats. See `minigrad.ops.cross_entropy`.

    Args:
        logits: (..., V).
        targets: integers (...), or probabilities (..., V); an array or a tensor.
        weight: (V,) a factor for each class, or None for 1.
        ignore_index: targets of this value are ignored.
        label_smoothing: ε in [0, 1).
        reduction: "mean" over the targets that are not ignored, "sum", or "none".

    Raises:
        ShapeError: targets do not have the shape of the logits' rows.
        IndexError: a target is out of range (checked on the CPU).
        ValueError: unknown reduction, ε out of range, or the mean when all targets are ignored.
    """
    (logits,) = as_floats(logits)
    targets = _as_ids(targets, logits)
    check_reduction("cross_entropy", reduction)
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1), not {label_smoothing}")
    if logits.node is not None and logits.node.op is ops.reduce.softmax:
        warnings.warn(
            "cross_entropy does the softmax itself, and is given the result of one here. So there "
            "are two, with which a model learns slowly: leave out your own.",
            UserWarning,
            stacklevel=2,
        )
    chances = targets.dtype.kind == "f" and targets.ndim == logits.ndim
    if weight is not None or chances:
        return weighted_cross_entropy(
            logits,
            targets,
            weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
    if logits.ndim < 1 or targets.shape != logits.shape[:-1]:
        raise ShapeError(
            f"cross_entropy: logits of shape {logits.shape} need targets of shape "
            f"{logits.shape[:-1]}, not {targets.shape}{what_targets_are(logits, targets)}"
        )
    counted = check_ids(targets.array, logits.shape[-1], "cross_entropy", ignore_index)
    if reduction == "mean" and not counted:
        raise ValueError("cross_entropy: no target counts, so there is no mean")
    return apply(
        ops.cross_entropy.cross_entropy,
        logits,
        targets,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )


def dropout(x: Tensor, p: float, *, rng: Generator) -> Tensor:
    """Set elements to 0 with probability p and divide the others by 1 - p.

    Raises:
        TypeError: `rng` is no generator.
        ValueError: p is not in [0, 1).
    """
    check_probability(p)
    (x,) = as_floats(x)
    if p == 0:
        return x
    if not hasattr(rng, "bernoulli"):
        check_rng("dropout", rng)
    keep = rng.bernoulli(x.shape, 1 - p).to(x.device)
    return apply(ops.dropout.dropout, x, keep, p=p)


def _as_ids(ids: Any, like: Tensor) -> Tensor:
    return ids if isinstance(ids, Tensor) else Tensor(ids, device=like.device)


def _check_channels(op: str, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    if x.ndim == 0:
        raise ShapeError(f"{op}: x of shape () has no last axis")
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != x.shape[-1:]:
            raise ShapeError(f"{op}: {name} of shape {vector.shape} does not fit x of {x.shape}")


if not TYPE_CHECKING:  # otherwise checkers would accept every name
    __getattr__ = missing_name(__name__)
