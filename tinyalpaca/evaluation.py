"""How well a model predicts a text, in nats per token and per character.

Nats per character are the total negative log-likelihood of the text over its characters, so models
with different tokenizers can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log
from typing import Any, NamedTuple

import numpy as np

from minigrad.nn import functional

Part = tuple[np.ndarray, ...]
IGNORED = -100  # the cross-entropy's `ignore_index`


class Score(NamedTuple):
    """Total negative log-likelihood in nats, and the numbers of tokens and characters."""

    nats: float
    tokens: int
    characters: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def nats_per_character(self) -> float:
        return self.nats / self.characters

    @property
    def bits_per_token(self) -> float:
        return self.nats_per_token / log(2)

    @property
    def bits_per_character(self) -> float:
        return self.nats_per_character / log(2)


def evaluation_batches(
    tokens: np.ndarray, seq_len: int, batch_size: int, stride: int = 0
) -> Iterator[Part]:
    """Inputs and targets (B, T) that predict every token but the first exactly once.

    Windows of `seq_len` tokens overlap by one, so that the last token of one is the first input of
    the next. With a `stride`, each window begins `stride` tokens after the one before and predicts
    only its last `stride` tokens; the targets before them are `IGNORED`. So except at the beginning
    each prediction sees at least seq_len - 1 - stride tokens. The rest at the end is one more
    window.

    Args:
        stride: 0 stands for seq_len - 1: windows whose predictions do not overlap.

    Raises:
        ValueError: there are fewer than two tokens, or stride is not in [0, seq_len).
    """
    if len(tokens) < 2:
        raise ValueError(f"{len(tokens)} token(s) give nothing to predict; use a longer text")
    if not 0 <= stride < seq_len:
        raise ValueError(f"the stride must be from 0 to seq_len - 1 ({seq_len - 1}), not {stride}")
    length, stride = seq_len - 1, stride or seq_len - 1
    predictions = len(tokens) - 1
    full = max(0, (predictions - length) // stride + 1)  # windows of `length` predictions
    overlap = length - stride
    if overlap and full:
        yield _windows(tokens, np.arange(1), length, 0)
    for first in range(1 if overlap else 0, full, batch_size):
        starts = np.arange(first, min(first + batch_size, full)) * stride
        yield _windows(tokens, starts, length, overlap)
    done = (full - 1) * stride + length if full else 0
    if done < predictions:
        start = max(0, predictions - length) if overlap else done
        yield _windows(tokens, np.array([start]), predictions - start, done - start)


def _windows(tokens: np.ndarray, starts: np.ndarray, length: int, masked: int) -> Part:
    """Inputs and targets (B, length) from `starts` (B,) on, without the first `masked` targets."""
    windows = tokens[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    targets = windows[:, 1:]
    if masked:
        targets = targets.copy()
        targets[:, :masked] = IGNORED
    return windows[:, :-1], targets


def summed_loss(model: Any, ids: Any, targets: Any, label_smoothing: float = 0.0) -> Any:
    """The sum of a model's losses in nats: of its own `loss`, or the cross-entropy of its logits.

    Args:
        ids, targets: (B, T) each.
    """
    loss = getattr(model, "loss", None)
    if loss is not None:
        return loss(ids, targets, label_smoothing=label_smoothing, reduction="sum")
    return functional.cross_entropy(
        model(ids), targets, label_smoothing=label_smoothing, reduction="sum"
    )


def evaluate(
    summed_loss: Callable[[Part], Any],
    tokens: np.ndarray,
    characters: int,
    *,
    seq_len: int,
    batch_size: int = 32,
    stride: int = 0,
) -> Score:
    """Score `tokens`, which stand for that many `characters` (the first token is not predicted).

    Args:
        summed_loss: maps inputs and targets (B, T) to the sum of their losses in nats, without
            targets that are `IGNORED`. On a GPU the sum may stay on the device until the end.
        stride: see `evaluation_batches`.
    """
    batches = evaluation_batches(tokens, seq_len, batch_size, stride)
    nats = float(sum(summed_loss(part) for part in batches))
    return Score(nats, len(tokens) - 1, characters)
