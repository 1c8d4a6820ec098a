"""Keys and values of positions that a model has computed, so that later tokens need only their own.

    cache = KeyValues(sequences=2, room=128)
    logits = model(prompts, cache)        # (2, T) ids from the beginning: of the token after them
    logits = model(tokens, cache)         # (2, 1) ids: one position more, which sees all before it

What a model does with a cache: `begin` says which positions it computes, each attention layer hands
its queries, keys and values to `mix`, and `end` counts the positions. All other layers treat each
position alone. No gradient comes through a cache.

B sequences of a call, T positions of a call, H heads of queries, K of keys and values (H is a
multiple of it), D head size, S room, L positions so far.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from minigrad import Tensor
from minigrad.device import namespace_of
from minigrad.dtypes import widened
from minigrad.errors import ShapeError


class KeyValues:
    """Keys and values of some sequences, of every layer that hands in its own.

    Args:
        sequences: how many.
        room: S, how many positions of each at most.

    Attributes:
        room: as given.
        lengths: (sequences,) how many positions are cached. Setting one to 0 begins it anew.
        rows: the sequences of the next call, as an index of `lengths`: all, unless set.
        places: (B, T) the positions that are being computed; None where they are 0 to T - 1 of
            all, which a model computes as it does without a cache.
    """

    room: int
    lengths: np.ndarray

    def __init__(self, sequences: int, room: int) -> None:
        self.room, self.lengths = room, np.zeros(sequences, np.int64)
        self.rows: Any = slice(None)
        self.places: np.ndarray | None = None
        self._kept: dict[Any, Any] = {}  # layer -> (sequences, 2, K, S, D), keys then values
        self._time = 0

    def begin(self, shape: tuple[int, ...]) -> None:
        """A model computes ids of this shape (B, T), the next ones of `rows`.

        Raises:
            ShapeError: there are more or fewer sequences, or there is no room for so many.
        """
        before = self.lengths[self.rows]
        batch, self._time = shape
        if batch != len(before):
            raise ShapeError(f"a cache of {len(before)} sequences for ids of shape {shape}")
        if before.size and before.max() + self._time > self.room:
            raise ShapeError(
                f"a cache has room for {self.room} positions: {self._time} after "
                f"{before.max()} are too many"
            )
        self.places = before[:, None] + np.arange(self._time) if before.any() else None

    def mix(
        self, layer: Any, qkv: Tensor, num_heads: int, num_kv_heads: int | None = None
    ) -> Tensor | None:
        """Keep a layer's keys and values, and mix the values of all positions so far.

        Args:
            layer: by which its keys and values are found again, such as the module itself.
            qkv: (B, T, (H + 2K)·D): all queries, then all keys, then all values, each by head,
                turned by their positions already if positions are rotary.
            num_heads, num_kv_heads: H, and K if it is another number.

        Returns:
            (B, T, H·D), or None where nothing came before: then it is causal self-attention of
            `qkv`, which the layer has an op for.
        """
        array, xp = qkv.array, qkv.device.xp
        batch, time, channels = array.shape
        groups = num_kv_heads or num_heads
        size = channels // (num_heads + 2 * groups)
        heads = array.reshape(batch, time, -1, size).swapaxes(1, 2)  # (B, H + 2K, T, D)
        rows = self.rows if isinstance(self.rows, slice) else xp.asarray(self.rows)
        kept = self._room_for(layer, (2, groups, self.room, size), xp, array.dtype)
        new = heads[:, num_heads:].reshape(batch, 2, groups, time, size)
        if self.places is None:
            kept[rows, :, :, :time] = new
            return None
        first, longest = int(self.places[0, 0]), int(self.places.max()) + 1
        alike = first + time == longest and bool((self.places[:, 0] == first).all())
        if alike:
            kept[rows, :, :, first:longest] = new
        else:
            each = xp.arange(len(self.lengths))[rows][:, None]  # (B, 1)
            kept[each, :, :, xp.asarray(self.places)] = new.transpose(0, 3, 1, 2, 4)
        # Of float16, as every op, it is computed in float32: scores may be beyond 65504.
        q = widened(heads[:, :num_heads].reshape(batch, groups, -1, size))  # (B, K, H/K·T, D)
        so_far = widened(kept[rows, :, :, :longest])  # (B, 2, K, L, D)
        scores = xp.matmul(q, so_far[:, 0].swapaxes(-1, -2))  # (B, K, H/K·T, L)
        scores *= scores.dtype.type(1 / sqrt(size))
        if time > 1 or not alike:  # what is later than a query, (B, 1, 1, T, L)
            later = xp.arange(longest) > xp.asarray(self.places)[:, None, None, :, None]
            scores.reshape(batch, groups, -1, time, longest)[...] += xp.where(
                later, scores.dtype.type(-np.inf), scores.dtype.type(0)
            )
        scores -= scores.max(axis=-1, keepdims=True)
        xp.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = xp.matmul(scores, so_far[:, 1]).astype(array.dtype, copy=False)
        mixed = mixed.reshape(batch, num_heads, time, size)
        return Tensor.wrap(mixed.swapaxes(1, 2).reshape(batch, time, num_heads * size))

    def end(self) -> None:
        """All layers have kept what was begun."""
        self.lengths[self.rows] += self._time

    def of(self, layer: Any) -> Any:
        """A layer's keys and values, (sequences, 2, K, S, D)."""
        return self._kept[layer]

    def take(self, rows: Any, other: KeyValues, row: int, length: int) -> None:
        """Begin these sequences with the first `length` positions of one of another cache."""
        for layer, theirs in other._kept.items():
            xp, (_, pair, groups, _, size) = namespace_of(theirs), theirs.shape
            kept = self._room_for(layer, (pair, groups, self.room, size), xp, theirs.dtype)
            kept[xp.asarray(rows), :, :, :length] = theirs[row, :, :, :length]
        self.lengths[rows] = length

    def _room_for(self, layer: Any, shape: tuple[int, ...], xp: Any, dtype: Any) -> Any:
        """A layer's keys and values, which are made if this is its first call."""
        kept = self._kept.get(layer)
        if kept is None:
            kept = self._kept[layer] = xp.zeros((len(self.lengths), *shape), dtype)
        return kept

    def remove(self, row: int) -> None:
        """Forget a sequence; the last one takes its place."""
        last = len(self.lengths) - 1
        self.lengths[row] = self.lengths[last]
        self.lengths = self.lengths[:last]
        for layer, kept in self._kept.items():
            kept[row] = kept[last]
            self._kept[layer] = kept[:last]
