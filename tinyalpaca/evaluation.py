"""How well a model predicts a text, in nats per token and per character.

Nats per character are the total negative log-likelihood of the text over its characters, so models
with different tokenizers can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Part = tuple[np.ndarray, ...]


class Score(NamedTuple):
    """Total negative log-likelihood in nats, and what it is spread over."""

    nats: float
    tokens: int
    characters: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def nats_per_character(self) -> float:
        return self.nats / self.characters


def evaluation_batches(tokens: np.ndarray, seq_len: int, batch_size: int) -> Iterator[Part]:
    """Inputs and targets (B, T) that predict every token but the first exactly once.

    Windows of `seq_len` tokens overlap by one, so that the last token of one is the first input of
    the next; what remains at the end is a shorter window.

    Raises:
        ValueError: there are fewer than two tokens.
    """
    if len(tokens) < 2:
        raise ValueError(f"{len(tokens)} token(s) give nothing to predict; use a longer text")
    stride = seq_len - 1
    full = (len(tokens) - 1) // stride
    for first in range(0, full, batch_size):
        starts = np.arange(first, min(first + batch_size, full)) * stride
        windows = tokens[starts[:, None] + np.arange(seq_len)].astype(np.int64)
        yield windows[:, :-1], windows[:, 1:]
    if full * stride + 1 < len(tokens):
        rest = tokens[None, full * stride :].astype(np.int64)
        yield rest[:, :-1], rest[:, 1:]


def evaluate(
    summed_loss: Callable[[Part], float],
    tokens: np.ndarray,
    characters: int,
    *,
    seq_len: int,
    batch_size: int = 32,
) -> Score:
    """Score `tokens`, which stand for that many `characters` (the first token is not predicted).

    Args:
        summed_loss: maps inputs and targets (B, T) to the sum of their losses in nats.
    """
    nats = sum(summed_loss(part) for part in evaluation_batches(tokens, seq_len, batch_size))
    return Score(nats, len(tokens) - 1, characters)
