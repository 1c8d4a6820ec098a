"""Computes the logits of the next tokens of sequences, with cached keys and values.

    decoder = ModelDecoder(model, V, sequences, capacity)
    logits = decoder.next_logits()      # (B, V), of the token after each sequence
    for sequence, token in zip(sequences, tokens): sequence.append(token)
    logits = decoder.next_logits()      # computes one position of each, not all

The model itself computes prompts, and windows that have slid (`tinyalpaca.generation.windows`).
What computes one more position depends on the model and the number of sequences:

- small model, few sequences: `single_step` with folded weights;
- small model, many sequences: `batch_decoder`;
- large model, one sequence: `single_step` with the model's own weights;
- otherwise: the model itself (`ModelDecoder`).

B sequences, T positions, S capacity of the cache, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.device import CPU
from minigrad.dtypes import widened
from minigrad.nn import Module
from tinyalpaca.generation.uncached import run
from tinyalpaca.generation.windows import Tokens, Windows
from tinyalpaca.key_values import KeyValues

PREFILL_ROWS = 1 << 12  # positions that are computed at once


class CachedDecoder(ABC):
    """Logits from cached keys and values: one position of each sequence at a time.

    Args:
        model: `tinyalpaca.key_values` says what a model needs for this.
        sequences: token ids, at least one each; the caller appends one token to each between
            calls.
        capacity: the length that sequences may reach. The cache has so many positions, but at most
            as many as the context.
        modules: all modules of the model, if the caller has them already.

    Attributes:
        room: S.
    """

    def __init__(
        self,
        model: Any,
        sequences: Sequence[Tokens],
        capacity: int | None = None,
        modules: Sequence[Module] = (),
    ) -> None:
        self.model = model
        self._modules = modules or list(model.modules())
        context = model.config.max_seq_len
        self.windows: Windows = Windows(sequences, context)
        self.room: int = min(capacity or context, context)

    def next_logits(self) -> np.ndarray:
        """Logits of the token after each sequence, (B, V), in main memory, never in float16."""
        late = self.windows.slide()
        if late:
            self._prefill(late)
        return self._step(*self.windows.last())

    def remove(self, row: int) -> None:
        """Remove a sequence; the last one takes its place."""
        self.windows.remove(row)
        self._forget(row)

    @abstractmethod
    def _step(self, ids: list[int], places: list[int]) -> np.ndarray:
        """Logits (B, V) after one more token for each sequence, at these positions."""

    @abstractmethod
    def _keep(self, rows: list[int], cache: KeyValues, row: int, length: int) -> None:
        """Copy `length` positions of sequence `row` in `cache` to the cache of these sequences."""

    @abstractmethod
    def _forget(self, row: int) -> None:
        """Overwrite this sequence's keys and values with those of the last sequence."""

    def _prefill(self, rows: list[int]) -> None:
        """Cache keys and values of all tokens in the windows of these rows except the last ones.

        Equal windows, such as those of several samples of a prompt, are computed once.
        """
        alike: dict[tuple[int, ...], list[int]] = {}
        for row in rows:
            alike.setdefault(tuple(self.windows.before_last(row)), []).append(row)
        windows = sorted(alike, key=len)
        while windows:
            longest = len(windows[-1])
            count = max(1, PREFILL_ROWS // max(1, longest))
            part, windows = windows[-count:], windows[:-count]
            cache = KeyValues(len(part), longest)
            if longest:
                # Shorter ones are padded at the end, which no position attends to.
                ids = np.zeros((len(part), longest), np.int64)
                for padded, window in zip(ids, part, strict=True):
                    padded[: len(window)] = window
                run(self.model, self._modules, ids, cache)
            for number, window in enumerate(part):
                self._keep(alike[window], cache, number, len(window))


class ModelDecoder(CachedDecoder):
    """Logits by running the model itself, on any device.

    Args:
        vocab_size: V, the tokenizer's.
        The others: as for `CachedDecoder`.
    """

    def __init__(
        self,
        model: Any,
        vocab_size: int,
        sequences: Sequence[Tokens],
        capacity: int | None = None,
        modules: Sequence[Module] = (),
    ) -> None:
        super().__init__(model, sequences, capacity, modules)
        self.vocab_size = vocab_size
        self.cache: KeyValues = KeyValues(len(sequences), self.room)

    def _step(self, ids: list[int], places: list[int]) -> np.ndarray:
        self.cache.lengths[:] = places
        logits = run(self.model, self._modules, [[token] for token in ids], self.cache)
        return widened(CPU.asarray(logits.array)[:, 0, : self.vocab_size])

    def _keep(self, rows: list[int], cache: KeyValues, row: int, length: int) -> None:
        self.cache.take(rows, cache, row, length)

    def _forget(self, row: int) -> None:
        self.cache.remove(row)
