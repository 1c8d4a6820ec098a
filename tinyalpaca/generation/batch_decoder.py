"""One more token for each of many sequences on the CPU.

Weights are folded, and arrays are transposed compared with the model: a sequence is a column. So
norms, activations and the softmax run over long rows. Positions are the first axis of cached keys
and values, so a step writes one contiguous piece of memory and reads another from front to back.
Attention is two `einsum` calls per layer for all sequences and heads, instead of two small matmuls
for each of them.

This is faster if heads are small. With large heads, a matmul for each head is fast enough.

W columns (sequences, and those that have ended), C channels, H heads, D head size,
F feed-forward width, S capacity of the cache, T positions so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.nn import Module
from tinyalpaca.config import ModelConfig
from tinyalpaca.generation.decoder import CachedDecoder
from tinyalpaca.generation.folded_weights import Layer, Weights, activate
from tinyalpaca.generation.windows import Tokens
from tinyalpaca.key_values import KeyValues


class BatchDecoder(CachedDecoder):
    """Logits of many sequences.

    Args:
        weights: the folded weights.
        The others: as for `CachedDecoder`.

    Attributes:
        cache: (layers, 2, S, D, H, W): keys, then values.
    """

    weights: Weights

    def __init__(
        self,
        model: Any,
        weights: Weights,
        sequences: Sequence[Tokens],
        capacity: int | None = None,
        modules: Sequence[Module] = (),
    ) -> None:
        super().__init__(model, sequences, capacity, modules)
        self.weights, config = weights, weights.config
        self._layers = [_turned(layer, config) for layer in weights.layers]
        size = config.d_model // config.num_heads
        shape = (config.num_layers, 2, self.room, size, config.num_heads, len(sequences))
        self.cache: np.ndarray = np.zeros(shape, weights.dtype)
        self._make_buffers()

    def _keep(self, rows: list[int], cache: KeyValues, row: int, length: int) -> None:
        for number, kept in enumerate(self.weights.keys_values(self.model, cache, row, length)):
            self.cache[number, :, :length, ..., rows] = kept.transpose(0, 2, 3, 1)

    def _forget(self, row: int) -> None:
        """Remove a column. The memory shrinks when half of the columns are unused."""
        last = len(self.windows.sequences)
        self.cache[..., row] = self.cache[..., last]
        if 2 * last <= self.cache.shape[-1] and last:
            self.cache = np.ascontiguousarray(self.cache[..., :last])
            self._make_buffers()

    def _make_buffers(self) -> None:
        """Make the buffers for a step's activations, with one column for each sequence."""
        config, columns, dtype = self.weights.config, self.cache.shape[-1], self.weights.dtype
        c = config.d_model
        self._around_attention = np.ones((2 * c + 1, columns), dtype)  # [x̂ | 1 | mixed values]
        self._around_ffn = np.ones((c + 1 + config.d_ff, columns), dtype)  # [x̂ | 1 | hidden]
        self._qkv = np.empty((3 * c, columns), dtype)
        self._block = np.empty((c, columns), dtype)
        self._squares = np.empty((c, columns), dtype)
        self._hidden_zeros = np.zeros((config.d_ff, columns), dtype)
        self._mean_of = np.full(c, 1 / c, dtype)

    def _step(self, ids: list[int], places: list[int]) -> np.ndarray:
        count, unused = len(ids), self.cache.shape[-1] - len(ids)
        return self._columns(
            np.array(ids + [0] * unused), np.array(places + places[:1] * unused), count
        )

    def _columns(self, ids: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
        """Logits (B, V) of the first `count` columns; ids and places are (W,)."""
        weights, c = self.weights, self.weights.config.d_model
        pre_norm = weights.config.pre_norm
        start = c if pre_norm else 0  # where a block's rows begin; see Layer
        around_attention, around_ffn = self._around_attention, self._around_ffn
        x, normal = weights.tokens[ids], around_attention[:c]
        if weights.positions is not None:
            x += weights.positions[places]
        x = normal[...] = x.T  # (C, W)
        longest, hidden = int(places.max()) + 1, None
        if longest != int(places.min()) + 1:  # mask positions beyond a sequence's end, (T, 1, W)
            beyond = np.arange(longest)[:, None, None] > places
            hidden = np.where(beyond, -np.inf, 0).astype(weights.dtype)
        for number, (w_qkv, w_out, w_fc1, w_fc2) in enumerate(self._layers):
            if pre_norm:
                self._normalise(x, normal)
            np.matmul(w_qkv, around_attention[: c + 1], out=self._qkv)
            self._attend(number, places, longest, hidden)
            y = np.matmul(w_out, around_attention[start:], out=self._block)
            x = x + y if pre_norm else y
            self._normalise(x, around_ffn[:c])
            self._activate(np.matmul(w_fc1, around_ffn[: c + 1], out=around_ffn[c + 1 :]))
            y = np.matmul(w_fc2, around_ffn[start:], out=self._block)
            x = x + y if pre_norm else y
            if not pre_norm:
                self._normalise(x, normal)
        if pre_norm:
            self._normalise(x, normal)
        return np.matmul(around_attention[: c + 1, :count].T, weights.head)

    def _attend(
        self, layer: int, places: np.ndarray, longest: int, hidden: np.ndarray | None
    ) -> None:
        """Cache the new keys and values, and write attention's output to `_around_attention`."""
        cache = self.cache[layer]
        size, heads, columns = cache.shape[2:]
        qkv = self._qkv.reshape(3, size, heads, columns)
        if self.weights.rotation is not None:
            self._rotate(qkv[:2], places)
        if hidden is None:
            cache[:, longest - 1] = qkv[1:]
        else:
            cache[:, places, ..., np.arange(columns)] = qkv[1:].transpose(3, 0, 1, 2)
        q = qkv[0].reshape(size, -1)
        keys, values = cache[:, :longest].reshape(2, longest, size, heads * columns)
        scores = np.einsum("dn,tdn->tn", q, keys)  # (T, H·W)
        if hidden is not None:
            scores.reshape(longest, heads, columns)[...] += hidden
        scores -= scores.max(axis=0)
        np.exp(scores, out=scores)
        mixed = self._around_attention[-size * heads :].reshape(size, heads * columns)
        np.einsum("tn,tdn->dn", scores, values, out=mixed)
        mixed /= scores.sum(axis=0)

    def _rotate(self, queries_keys: np.ndarray, places: np.ndarray) -> None:
        """Rotate queries and keys (2, D, H, W) by their positions (W,), in place."""
        turns = self.weights.rotation[places].T[:, None]  # (D/2, 1, W)
        even, odd = queries_keys[:, ::2], queries_keys[:, 1::2]
        turned = even * turns.real - odd * turns.imag
        odd[...] = even * turns.imag + odd * turns.real
        even[...] = turned

    def _normalise(self, x: np.ndarray, out: np.ndarray) -> None:
        """x/√(mean(x²) + ε) of each column."""
        square = np.matmul(self._mean_of, np.multiply(x, x, out=self._squares))  # (W,)
        square += self.weights.eps
        np.divide(x, np.sqrt(square, out=square), out=out)

    def _activate(self, hidden: np.ndarray) -> None:
        """The activation of the feed-forward network, in place."""
        if self.weights.config.activation == "relu":
            np.maximum(hidden, self._hidden_zeros, out=hidden)  # a scalar 0 would be slower
        else:
            activate(hidden, self.weights.config.activation)


def _turned(layer: Layer, config: ModelConfig) -> tuple[np.ndarray, ...]:
    """The transposed matrices, for columns instead of rows, with features in the order (D, H)."""
    c, heads = config.d_model, config.num_heads
    order = np.arange(c).reshape(heads, -1).T.reshape(-1)
    qkv = layer.qkv.reshape(-1, 3, c)[:, :, order].reshape(-1, 3 * c)
    out = np.concatenate([layer.out[:-c], layer.out[-c:][order]])
    return tuple(np.ascontiguousarray(m.T) for m in (qkv, out, layer.fc1, layer.fc2))
