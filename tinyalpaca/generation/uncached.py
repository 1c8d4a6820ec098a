"""What generation computes, as simply as can be: the whole model on each window, for every token.

It is the specification of `tinyalpaca.generation.decoder`, which gives the same logits in less
time, and is what runs inside `minigrad.textbook()`.

What the model sees of a long text is in `tinyalpaca.generation.windows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigrad import Tensor, no_grad
from minigrad.blas import sharing
from minigrad.device import CPU, Device
from minigrad.dtypes import widened
from minigrad.nn import Module
from minigrad.precision import precision
from tinyalpaca.generation.windows import Tokens, window_start
from tinyalpaca.key_values import KeyValues
from tinyalpaca.model import TinyAlpaca


def home_of(model: TinyAlpaca) -> Device:
    """The device that a model lives on: that of its parameters."""
    if type(model) is TinyAlpaca:  # quickly: it is asked for with every token
        return model.final_linear.weight.device
    return next(model.named_parameters())[1].device


@contextmanager
def evaluating(modules: Iterable[Module]) -> Iterator[None]:
    """Inside, these modules (all of a model) are in evaluation mode and record no graph."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def run(model: Any, modules: Iterable[Module], ids: Any, cache: KeyValues | None = None) -> Tensor:
    """What a model gives for ids (B, T) of the host. Texts are drawn from exact products, whatever
    it is trained with.

    Args:
        modules: all of the model.
    """
    given = home_of(model).asarray(np.asarray(ids))
    with evaluating(modules), precision("fp32"), sharing():
        return model(given) if cache is None else model(given, cache)


class UncachedDecoder:
    """Logits by running the whole model on each window.

    Args:
        model: the model.
        vocab_size: V, the tokenizer's.
        sequences: token ids; whoever owns the lists appends to them.
    """

    model: TinyAlpaca
    vocab_size: int
    sequences: list[Tokens]

    def __init__(self, model: TinyAlpaca, vocab_size: int, sequences: Sequence[Tokens]) -> None:
        self.model, self.vocab_size, self.sequences = model, vocab_size, list(sequences)

    def next_logits(self) -> np.ndarray:
        """Logits of the token after each sequence, (B, V); float32 of a model in float16."""
        context = self.model.config.max_seq_len
        rows = []
        for tokens in self.sequences:
            window = [tokens[window_start(len(tokens), context) :]]  # (1, T)
            logits = run(self.model, self.model.modules(), window).array[0, -1]
            rows.append(widened(CPU.asarray(logits)[: self.vocab_size]))
        return np.stack(rows)

    def remove(self, row: int) -> None:
        """Forget a sequence; the last one takes its place."""
        self.sequences[row] = self.sequences[-1]
        del self.sequences[-1]
