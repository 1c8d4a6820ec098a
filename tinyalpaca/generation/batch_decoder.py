"""One more token each of many sequences on the CPU.

The same as `CachedDecoder`, from which it takes how windows slide and are filled, with everything
the other way round: a sequence is a column. Norms, activations and the soft-max then run over long
rows, and cached keys and values lie positions first, so that a step writes one piece of memory and
reads another from front to back. Attention is two sums of products a layer for all sequences and
heads, instead of two small matrix products for each of them.

It pays from about `ENOUGH_SEQUENCES` sequences on, if heads are small: of large heads a product of
its own is no longer small.

W columns (sequences, and what is left of those that have gone), C channels, H heads, D head size,
F feed-forward width, S capacity of the cache, T positions so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyalpaca.config import ModelConfig
from tinyalpaca.generation.folded_weights import FoldedLayer, FoldedWeights
from tinyalpaca.generation.inference import CachedDecoder, activated
from tinyalpaca.generation.uncached import Tokens, window_start

ENOUGH_SEQUENCES = 16
LARGEST_HEAD = 32


def pays(config: ModelConfig, sequences: int) -> bool:
    """Whether so many sequences are better computed as columns."""
    return sequences >= ENOUGH_SEQUENCES and config.d_model // config.num_heads <= LARGEST_HEAD


class BatchDecoder(CachedDecoder):
    """Logits from cached keys and values, for many sequences on the CPU.

    Args: as for `CachedDecoder`.

    Attributes:
        cache: (layers, 2, S, D, H, W): keys, then values.
    """

    def __init__(
        self, weights: FoldedWeights, sequences: Sequence[Tokens], capacity: int | None = None
    ) -> None:
        self._layers = [_turned(layer, weights.config) for layer in weights.layers]
        super().__init__(weights, sequences, capacity)

    def next_logits(self) -> np.ndarray:
        """Logits of the token after each sequence, (B, V)."""
        lengths = np.fromiter(map(len, self.sequences), np.intp, len(self.sequences))
        starts = np.array(self.starts)
        late = ((starts < 0) | (lengths - starts > self.context)).nonzero()[0]
        if late.size:
            for row in late.tolist():
                self.starts[row] = window_start(int(lengths[row]), self.context)
            self.prefill(late.tolist())
            starts = np.array(self.starts)
        return self._step(np.array([tokens[-1] for tokens in self.sequences]), lengths - 1 - starts)

    def remove(self, row: int) -> None:
        """Forget a sequence; the last one takes its place. Columns are given up by halves."""
        last = len(self.sequences) - 1
        self.sequences[row], self.starts[row] = self.sequences[last], self.starts[last]
        self.cache[..., row] = self.cache[..., last]
        del self.sequences[last], self.starts[last]
        if 2 * last <= self.cache.shape[-1] and last:
            self.cache = np.ascontiguousarray(self.cache[..., :last])
            self._make_buffers()

    def _make_cache(self, room: int) -> None:
        config, columns = self.weights.config, len(self.sequences)
        shape = (config.num_layers, 2, room, self.head_size, config.num_heads, columns)
        self.cache = np.zeros(shape, self.weights.dtype)
        self._make_buffers()

    def _make_buffers(self) -> None:
        """Activations of a step, one column a sequence."""
        config, columns, dtype = self.weights.config, self.cache.shape[-1], self.weights.dtype
        c = config.d_model
        self._around_attention = np.ones((2 * c + 1, columns), dtype)  # [x̂ | 1 | mixed values]
        self._around_ffn = np.ones((c + 1 + config.d_ff, columns), dtype)  # [x̂ | 1 | hidden]
        self._qkv = np.empty((3 * c, columns), dtype)
        self._block = np.empty((c, columns), dtype)
        self._squares = np.empty((c, columns), dtype)
        self._hidden_zeros = np.zeros((config.d_ff, columns), dtype)
        self._mean_of = np.full(c, 1 / c, dtype)

    def _keep(self, layer: int, rows: list[int], keys_values: np.ndarray) -> None:
        length = keys_values.shape[1]
        self.cache[layer, :, :length, ..., rows] = keys_values.transpose(0, 2, 1, 4, 3)

    def _step(self, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Logits (B, V) after one more token each; ids and places (their positions) are (B,)."""
        count, unused = len(ids), self.cache.shape[-1] - len(ids)
        if unused:
            ids = np.concatenate([ids, np.zeros(unused, ids.dtype)])
            places = np.concatenate([places, np.full(unused, places[0])])
        weights, c = self.weights, self.weights.config.d_model
        pre_norm = weights.config.pre_norm
        start = c if pre_norm else 0  # where a block's rows begin; see FoldedLayer
        around_attention, around_ffn = self._around_attention, self._around_ffn
        x, normal = weights.tokens[ids], around_attention[:c]
        if weights.positions is not None:
            x += weights.positions[places]
        x = normal[...] = x.T  # (C, W)
        longest, hidden = int(places.max()) + 1, None
        if longest != int(places.min()) + 1:  # what is beyond a sequence's end, (T, 1, W)
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
        """Keep the new keys and values, and mix all so far into `_around_attention`."""
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
        """Turn queries and keys (2, D, H, W) by their positions (W,), in place."""
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
            hidden[...] = activated(np, hidden, self.weights.config.activation)


def _turned(layer: FoldedLayer, config: ModelConfig) -> tuple[np.ndarray, ...]:
    """The matrices for columns instead of rows, with features in the order (D, H)."""
    c, heads = config.d_model, config.num_heads
    order = np.arange(c).reshape(heads, -1).T.reshape(-1)
    qkv = layer.qkv.reshape(-1, 3, c)[:, :, order].reshape(-1, 3 * c)
    out = np.concatenate([layer.out[:-c], layer.out[-c:][order]])
    return tuple(np.ascontiguousarray(m.T) for m in (qkv, out, layer.fc1, layer.fc2))
