"""Losses of regression and of classification: as functions, and as modules with their settings.

`cross_entropy`, which is an op of its own, is in `minigrad.nn.functional`.
"""

from __future__ import annotations

from typing import Any

from minigrad import functions
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_float, as_tensor
from minigrad.nn.checks import broadcasts, check_chances, check_ids, check_reduction
from minigrad.nn.module import Module
from minigrad.tensor import Tensor


def mse_loss(prediction: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """(prediction - target)², element by element.

    Args:
        prediction: any shape.
        target: of that shape, or a single number for all.
        reduction: "mean" over all elements, "sum", or "none".

    Raises:
        ShapeError: the shapes differ.
        ValueError: unknown reduction.
    """
    difference = _difference("mse_loss", prediction, target)
    return reduced("mse_loss", difference * difference, reduction)


def l1_loss(prediction: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """|prediction - target|, element by element; its gradient is 0 where they are equal.

    Args and Raises: as `mse_loss`.
    """
    return reduced("l1_loss", functions.abs(_difference("l1_loss", prediction, target)), reduction)


def huber_loss(
    prediction: Any, target: Any, *, delta: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """½e² for an error |e| up to delta, delta·(|e| - ½delta) above, so that outliers matter less.

    Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35, 1964.
    With d = min(|e|, delta) both are d·(|e| - ½d).

    Args and Raises: as `mse_loss`; ValueError also if delta is not above 0.
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be above 0, it is {delta}")
    size = functions.abs(_difference("huber_loss", prediction, target))
    inside = size <= delta
    small, large = 0.5 * size * size, delta * (size - 0.5 * delta)
    return reduced("huber_loss", functions.where(inside, small, large), reduction)


def nll_loss(
    log_probabilities: Any,
    targets: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-weight[target]·log_probabilities[..., target]: cross-entropy after a `log_softmax`.

    Args:
        log_probabilities: (..., V).
        targets: integers (...), an array or a tensor.
        weight: (V,) a factor for each class, or None for 1.
        ignore_index: targets of this value are ignored.
        reduction: "mean" (the sum divided by the factors of targets not ignored), "sum", "none".

    Raises:
        ShapeError: targets or weight do not fit.
        IndexError: a target is out of range (checked on the CPU).
        ValueError: unknown reduction.
    """
    logs = as_float(log_probabilities)
    losses, factors = _picked("nll_loss", logs, targets, weight, ignore_index)
    return _averaged("nll_loss", losses, factors, reduction)


def binary_cross_entropy_with_logits(
    logits: Any,
    targets: Any,
    weight: Any = None,
    *,
    pos_weight: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """-(t·ln σ(z) + (1 - t)·ln(1 - σ(z))) for logits z and targets t, in nats.

    Computed as t·softplus(-z) + (1 - t)·softplus(z), which is exact for any z, however large.

    Args:
        logits: any shape.
        targets: probabilities of that shape, usually 0 and 1, or one for all; an array or a tensor.
        weight: factors of the elements' losses; broadcasts to the shape.
        pos_weight: factors of the t terms; broadcasts to the shape.
        reduction: "mean" over all elements, "sum", or "none".

    Raises:
        ShapeError: targets, weight or pos_weight do not fit the logits.
        ValueError: unknown reduction, or a target is not in [0, 1]. That is checked on the CPU,
            where nothing is left out by a weight or a mask.
    """
    name = "binary_cross_entropy_with_logits"
    check_reduction(name, reduction)
    logits = as_float(logits)
    targets, weight, pos_weight = (
        None if x is None else as_tensor(x, like=logits) for x in (targets, weight, pos_weight)
    )
    targets = targets if targets.dtype.kind == "f" else targets.astype(logits.dtype, copy=False)
    if targets.shape not in ((), logits.shape):
        raise ShapeError(f"{name}: logits of shape {logits.shape}, targets of {targets.shape}")
    for word, factor in (("weight", weight), ("pos_weight", pos_weight)):
        if factor is not None and not broadcasts(factor.shape, logits.shape):
            raise ShapeError(f"{name}: {word} of shape {factor.shape} for logits of {logits.shape}")
    if weight is None and reduction != "none":  # otherwise some targets may be left out
        check_chances(name, targets.array)
    positive = functions.softplus(-logits) * targets
    if pos_weight is not None:
        positive = positive * pos_weight
    loss = positive + functions.softplus(logits) * (1 - targets)
    if weight is not None:
        loss = loss * weight
    return reduced(name, loss, reduction)


def weighted_cross_entropy(
    logits: Tensor,
    targets: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy with a factor for each class, or with probabilities as targets.

    With a factor w[c] for class c and the smoothed target t' = (1 - ε)·t + ε/V the loss of a row is
    -Σ w[c]·t'[c]·ln softmax(logits)[c] over the classes c. The mean divides by the targets' factors
    if targets are classes, and by the number of rows if they are probabilities, as PyTorch's.

    Args:
        logits: (..., V).
        targets: integers (...), or probabilities (..., V).
        weight: (V,) or None for 1.
        ignore_index, label_smoothing, reduction: as `minigrad.nn.functional.cross_entropy`.
    """
    op = "cross_entropy"
    logs = functions.log_softmax(logits, axis=-1)
    target = as_tensor(targets, like=logits)
    weighted = logs * _class_weights(op, logs, weight)
    every = functions.sum(weighted, axis=-1)  # what smoothing gives to all classes
    even = label_smoothing / logits.shape[-1]
    if target.dtype.kind == "f" and target.ndim == logits.ndim:
        if target.shape != logits.shape:
            raise ShapeError(
                f"{op}: probabilities of shape {target.shape} for logits of {logits.shape}"
            )
        likely = functions.sum(weighted * target, axis=-1)
        return reduced(op, -((1 - label_smoothing) * likely + even * every), reduction)
    losses, factors = _picked(op, logs, target, weight, ignore_index)
    counts = functions.not_equal(target, ignore_index)
    losses = (1 - label_smoothing) * losses - even * functions.where(counts, every, 0)
    return _averaged(op, losses, factors, reduction)


def reduced(op: str, losses: Tensor, reduction: str) -> Tensor:
    """The losses, their mean or their sum."""
    check_reduction(op, reduction)
    if reduction == "none":
        return losses
    return functions.mean(losses) if reduction == "mean" else functions.sum(losses)


def _averaged(op: str, losses: Tensor, factors: Tensor, reduction: str) -> Tensor:
    """As `reduced`, where the mean is over the factors instead of the elements."""
    if reduction == "mean":
        return functions.sum(losses) / functions.sum(factors)
    return reduced(op, losses, reduction)


def _picked(
    op: str, logs: Tensor, targets: Any, weight: Any, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """-w·ln p of each target, and its w; both are 0 where the target is ignored."""
    target = as_tensor(targets, like=logs)
    if logs.ndim < 1 or target.shape != logs.shape[:-1]:
        raise ShapeError(
            f"{op}: scores of shape {logs.shape} need targets of shape {logs.shape[:-1]}, not "
            f"{target.shape}"
        )
    check_ids(target.array, logs.shape[-1], op, ignore_index)
    counts = functions.not_equal(target, ignore_index)
    ids = functions.where(counts, target, 0)
    factors = functions.where(counts, _class_weights(op, logs, weight)[ids], 0)
    rows = functions.reshape(logs, (-1, logs.shape[-1]))
    numbers = functions.arange(rows.shape[0], dtype="int64", device=logs.device)
    chosen = rows[numbers, functions.reshape(ids, -1)]
    return -functions.where(counts, functions.reshape(chosen, ids.shape), 0) * factors, factors


def _class_weights(op: str, logs: Tensor, weight: Any) -> Tensor:
    size = logs.shape[-1]
    if weight is None:
        return functions.ones(size, dtype=logs.dtype, device=logs.device)
    factors = as_tensor(weight, like=logs).astype(logs.dtype, copy=False)
    if factors.shape != (size,):
        raise ShapeError(f"{op}: weight of shape {factors.shape} for {size} classes")
    return factors


def _difference(op: str, prediction: Any, target: Any) -> Tensor:
    prediction = as_float(prediction)
    target = as_tensor(target, like=prediction)
    if target.shape not in ((), prediction.shape):
        raise ShapeError(
            f"{op}: prediction of shape {prediction.shape}, target of shape {target.shape}. "
            "Reshape one of them: broadcasting here is nearly always a mistake."
        )
    return prediction - target


class _Loss(Module):
    """A loss as a module: its settings are given once."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.settings.items())


class MSELoss(_Loss):
    """`minigrad.nn.functional.mse_loss` as a module."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def forward(self, prediction: Any, target: Any) -> Tensor:
        return mse_loss(prediction, target, **self.settings)


class L1Loss(_Loss):
    """`minigrad.nn.functional.l1_loss` as a module."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def forward(self, prediction: Any, target: Any) -> Tensor:
        return l1_loss(prediction, target, **self.settings)


class HuberLoss(_Loss):
    """`minigrad.nn.functional.huber_loss` as a module."""

    def __init__(self, *, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(delta=delta, reduction=reduction)

    def forward(self, prediction: Any, target: Any) -> Tensor:
        return huber_loss(prediction, target, **self.settings)
