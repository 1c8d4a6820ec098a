"""What generation computes, as simply as can be: the whole model on each window, for every token.

It is the specification of `tinyalpaca.generation.inference`, which gives the same logits in less
time, and is what runs inside `minigrad.textbook()`.

**Past the context length** L the window slides in jumps of half of L, so that work on a window can
be kept until it jumps: keys depend on positions. Of n tokens the model sees those from
`window_start(n, L)` on, between L/2 and L of them. Where a window starts depends on n alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from minigrad import no_grad
from minigrad.device import Device
from tinyalpaca.model import TinyAlpaca

Tokens = list[int]


def window_start(length: int, context: int) -> int:
    """Of so many tokens, the first that a model with this context length sees.

    >>> [window_start(n, 8) for n in (1, 8, 9, 12, 13)]
    [0, 0, 4, 4, 8]
    """
    jump = (context + 1) // 2
    return max(0, -(-(length - context) // jump) * jump)


def home_of(model: TinyAlpaca) -> Device:
    """The device that a model lives on: that of its parameters."""
    if type(model) is TinyAlpaca:  # quickly: it is asked for with every token
        return model.final_linear.weight.device
    return next(model.named_parameters())[1].device


@contextmanager
def evaluating(model: TinyAlpaca) -> Iterator[None]:
    """Inside, the model is in evaluation mode and records no graph."""
    training = model.training
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        model.train(training)


class UncachedDecoder:
    """Logits by running the whole model on each window.

    Args:
        model: the model.
        vocab_size: V, the tokenizer's.
        sequences: token ids; whoever owns the lists appends to them.
    """

    def __init__(self, model: TinyAlpaca, vocab_size: int, sequences: Sequence[Tokens]) -> None:
        self.model, self.vocab_size, self.sequences = model, vocab_size, list(sequences)

    def next_logits(self) -> np.ndarray:
        """Logits of the token after each sequence, (B, V)."""
        context = self.model.config.max_seq_len
        device = home_of(self.model)
        rows = []
        for tokens in self.sequences:
            window = np.array([tokens[window_start(len(tokens), context) :]])  # (1, T)
            with evaluating(self.model):
                rows.append(self.model(device.asarray(window))[0, -1].numpy()[: self.vocab_size])
        return np.stack(rows)

    def remove(self, row: int) -> None:
        """Forget a sequence; the last one takes its place."""
        self.sequences[row] = self.sequences[-1]
        del self.sequences[-1]
