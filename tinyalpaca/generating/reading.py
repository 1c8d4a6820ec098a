"""Reading a text again as the model saw it when it was written, token by token.

Each token is predicted from the window that generation would have had (`window_start`), so the
probabilities are those from which it was drawn, for the prompt's tokens too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from minigrad.device import CPU
from tinyalpaca.generating.folded_weights import FoldedWeights
from tinyalpaca.generating.inference import run_window
from tinyalpaca.generating.sampling import likeliest_of, log_probabilities
from tinyalpaca.generating.uncached import window_start


class Reading(NamedTuple):
    """How the model came to a token.

    Attributes:
        place: the token's number in the text, from 1 on.
        start: the first token that the model saw.
        logprobs: (V,) of what might have come, float64.
        attention: (layers, H, place - start) how much each token before was looked at.
    """

    place: int
    start: int
    logprobs: np.ndarray
    attention: np.ndarray

    def likeliest(self, count: int, allowed: np.ndarray | None = None) -> list[tuple[int, float]]:
        """The best tokens (of those allowed) with their probabilities, see `likeliest_of`."""
        return likeliest_of(self.logprobs, count, allowed)


def read_back(weights: FoldedWeights, tokens: Sequence[int]) -> Iterator[Reading]:
    """A reading of every token but the first."""
    context = weights.config.max_seq_len

    def start_of(place: int) -> int:
        return window_start(place, context)

    for start, group in groupby(range(1, len(tokens)), start_of):
        places = list(group)
        window = np.array([tokens[start : places[-1]]])  # (1, T)
        attention: list[np.ndarray] = []

        def keep(_: int, probabilities: object, kept: list[np.ndarray] = attention) -> None:
            kept.append(CPU.asarray(probabilities)[0])

        logits = CPU.asarray(run_window(weights, window, watch=keep))  # (T, V)
        stacked = np.stack(attention)  # (layers, H, T, T)
        for place in places:
            row = place - 1 - start
            yield Reading(
                place, start, log_probabilities(logits[row]), stacked[:, :, row, : row + 1]
            )
