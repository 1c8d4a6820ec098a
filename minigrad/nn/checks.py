"""Checks of settings and ids for layers and losses."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from minigrad.errors import ShapeError
from minigrad.random import Generator


def check_rng(layer: str, rng: Any) -> None:
    """Raise TypeError unless `rng` is a `minigrad.Generator`.

    Users often pass a seed or NumPy's generator instead.
    """
    if not isinstance(rng, Generator):
        raise TypeError(
            f"{layer}: rng must be a minigrad.Generator, not {type(rng).__name__}: "
            "rng=minigrad.Generator(0), where 0 is the seed"
        )


def check_probability(p: float) -> None:
    """Raise ValueError unless p is in [0, 1)."""
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1), not {p}")


def check_reduction(op: str, reduction: str) -> None:
    """Raise ValueError unless this is a reduction of a loss."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'{op}: reduction {reduction!r} is not "mean", "sum" or "none"')


def check_channel_vectors(op: str, x: Any, **vectors: Any) -> None:
    """Raise ShapeError unless each vector has one element a channel of (B, C, ...), or is None."""
    for name, vector in vectors.items():
        if vector is not None and vector.shape != x.shape[1:2]:
            raise ShapeError(f"{op}: {name} of shape {vector.shape} for x of shape {x.shape}")


def broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of `shape` broadcasts to `target`."""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def row_of_padding(padding_idx: int, size: int) -> int:
    """Which of `size` rows `padding_idx` means: negative ones count from the end.

    Raises:
        IndexError: there is no such row.
        TypeError: it is not an integer.
    """
    row = index(padding_idx)
    if not -size <= row < size:
        raise IndexError(f"embedding: padding_idx {padding_idx} is no row of a table of {size}")
    return row % size


def check_chances(op: str, targets: Any) -> None:
    """Raise ValueError if targets are no probabilities, as labels of 1 and 2, or of -1 and 1.

    Only arrays on the CPU are checked. A NaN is let through, and so is a hundredth below 0 or above
    1: numerical derivatives at 0 and 1 step beyond them.
    """
    if isinstance(targets, np.ndarray) and targets.size:
        least, most = targets.min(), targets.max()
        if least < -0.01 or most > 1.01:
            wrong = least if least < -0.01 else most
            raise ValueError(f"{op}: a target is a probability, from 0 to 1, not {wrong:g}")


def what_targets_are(logits: Any, targets: Any) -> str:
    """What may be meant by targets whose shape does not fit the logits, as words or ""."""
    if targets.shape == logits.shape:
        return ": of one-hot rows give .argmax(-1), or probabilities as floats"
    if targets.shape[:-1] == logits.shape[:-1] and targets.shape[-1:] == (1,):
        return ": .reshape(-1) or .squeeze(-1) takes the last axis away"
    if logits.ndim < targets.ndim:
        return ": the logits come first, cross_entropy(logits, targets)"
    if logits.ndim > 2 and (*logits.shape[:1], *logits.shape[2:]) == targets.shape:
        return ": the classes are the logits' last axis; minigrad.moveaxis(logits, 1, -1) moves it"
    return ""


def check_ids(ids: Any, size: int, op: str, ignore_index: int | None = None) -> bool:
    """Raise if an id is not in [0, size), naming it. True if any id is not ignored.

    Only arrays on the CPU are checked, since reading from a GPU would make it wait. NumPy and CuPy
    treat ids that are out of range differently, so data is checked before it goes to a GPU.
    """
    if ids.dtype.kind not in "iu":
        raise TypeError(
            f"{op}: ids must be integers, not {ids.dtype}: .astype('int64') makes them so"
        )
    if not isinstance(ids, np.ndarray):
        return True
    if ids.size and int(ids.min()) >= 0 and int(ids.max()) < size:
        inside = ignore_index is not None and 0 <= ignore_index < size
        return not inside or bool((ids != ignore_index).any())
    counted = ids if ignore_index is None else ids[ids != ignore_index]
    bad = counted[(counted < 0) | (counted >= size)]
    if bad.size:
        classes = "" if ignore_index is None else "; a target is the number of its class"
        raise IndexError(
            f"{op}: id {int(bad.flat[0])} is out of range for a vocabulary of {size} "
            f"(0 to {size - 1}){classes}"
        )
    return counted.size > 0
