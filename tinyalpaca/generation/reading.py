"""The probabilities of a text's tokens, as they were when the model wrote the text.

Each token is predicted from the window that generation would use (`window_start`). So these are the
probabilities from which the token was drawn. The prompt's tokens are predicted likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from minigrad.precision import precision
from tinyalpaca.generation.attention import watch_attention
from tinyalpaca.generation.generator import Generator
from tinyalpaca.generation.sampling import likeliest_of, log_probabilities
from tinyalpaca.generation.uncached import evaluating, home_of
from tinyalpaca.generation.windows import window_start


class Reading(NamedTuple):
    """The model's prediction of a token.

    Attributes:
        place: the token's index in the text, from 1 on.
        start: the index of the first token that the model saw.
        logprobs: (V,) log-probabilities of all tokens, float64.
        attention: (layers, H, place - start) the weights of the tokens before; 0 layers if the
            model's attention is not TinyAlpaca's, or if layers differ in their number of heads.
    """

    place: int
    start: int
    logprobs: np.ndarray
    attention: np.ndarray

    def likeliest(self, count: int, allowed: np.ndarray | None = None) -> list[tuple[int, float]]:
        """The best tokens (of those allowed) with their probabilities, see `likeliest_of`."""
        return likeliest_of(self.logprobs, count, allowed)


def read_back(generator: Generator, tokens: Sequence[int]) -> Iterator[Reading]:
    """A reading of every token of a text except the first, by the model itself."""
    model, vocab_size = generator.model, generator.tokenizer.vocab_size
    context = model.config.max_seq_len
    device = home_of(model)

    def start_of(place: int) -> int:
        return window_start(place, context)

    for start, group in groupby(range(1, len(tokens)), start_of):
        places = list(group)
        window = device.asarray(np.array([tokens[start : places[-1]]]))  # (1, T)
        # Generation computes matmuls in fp32, whatever precision a model is trained in.
        with evaluating(model.modules()), precision("fp32"), watch_attention(model) as attention:
            logits = model(window).numpy()[0, :, :vocab_size]  # (T, V)
        length = len(logits)
        alike = len({layer.shape for layer in attention}) == 1
        stacked = np.stack(attention) if alike else np.zeros((0, 0, length, length))
        for place in places:
            row = place - 1 - start
            yield Reading(
                place, start, log_probabilities(logits[row]), stacked[:, :, row, : row + 1]
            )
