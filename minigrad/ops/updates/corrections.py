"""Bias corrections of Adam and its relatives, whose averages start as zeros."""

from math import sqrt

from minigrad.op import Array, Number


def corrections(p: Array, step: Number, beta1: float, beta2: float) -> tuple[Number, Number]:
    """1 - β₁ᵗ and √(1 - β₂ᵗ). If t is an array, these are arrays of the dtype of `p`."""
    first, second = 1 - beta1**step, 1 - beta2**step
    if isinstance(step, int):
        return first, sqrt(second)
    return first.astype(p.dtype), (second**0.5).astype(p.dtype)
