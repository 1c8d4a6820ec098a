"""Generation in its simplest form: it runs the whole model on a window for every token.

This is the reference for `tinyalpaca.generation.decoder`, which computes the same logits faster. It
runs inside `minigrad.textbook()`.

`tinyalpaca.generation.windows` says which part of a long text the model sees.
"""

from __future__ import annotations

import threading
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
    """The device of a model's parameters."""
    if type(model) is TinyAlpaca:  # a short cut, because this is called for every token
        return model.final_linear.weight.device
    return next(model.named_parameters())[1].device


_lock = threading.Lock()
_held: dict[
    int, int
] = {}  # id of a module to put back in training mode -> how many blocks it is in


@contextmanager
def evaluating(modules: Iterable[Module]) -> Iterator[None]:
    """Context manager: these modules (all of a model) are in evaluation mode, without a graph.

    The mode is the module's, whichever thread runs it. If several threads are inside with one
    model, the last that leaves restores what the first has found.
    """
    with _lock:
        training = [module for module in modules if module.training or id(module) in _held]
        for module in training:
            module.training = False
            _held[id(module)] = _held.get(id(module), 0) + 1
    try:
        with no_grad():
            yield
    finally:
        with _lock:
            for module in training:
                _held[id(module)] -= 1
                if not _held[id(module)]:
                    del _held[id(module)]
                    module.training = True


def run(model: Any, modules: Iterable[Module], ids: Any, cache: KeyValues | None = None) -> Tensor:
    """The model's output for ids (B, T) in main memory.

    Matmuls are computed in fp32, whatever precision the model is trained in.

    Args:
        modules: all modules of the model.
    """
    given = home_of(model).asarray(np.asarray(ids))
    with evaluating(modules), precision("fp32"), sharing():
        return model(given) if cache is None else model(given, cache)


class UncachedDecoder:
    """Logits by running the whole model on each window.

    Args:
        model: the model.
        vocab_size: V, of the tokenizer.
        sequences: token ids; the caller appends to these lists.
    """

    model: TinyAlpaca
    vocab_size: int
    sequences: list[Tokens]

    def __init__(self, model: TinyAlpaca, vocab_size: int, sequences: Sequence[Tokens]) -> None:
        self.model, self.vocab_size, self.sequences = model, vocab_size, list(sequences)

    def next_logits(self) -> np.ndarray:
        """Logits of the token after each sequence, (B, V); float32 for a model in float16."""
        context = self.model.config.max_seq_len
        rows = []
        for tokens in self.sequences:
            window = [tokens[window_start(len(tokens), context) :]]  # (1, T)
            logits = run(self.model, self.model.modules(), window).array[0, -1]
            rows.append(widened(CPU.asarray(logits)[: self.vocab_size]))
        return np.stack(rows)

    def remove(self, row: int) -> None:
        """Remove a sequence; the last one takes its place."""
        self.sequences[row] = self.sequences[-1]
        del self.sequences[-1]
