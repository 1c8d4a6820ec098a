"""Running the model for generation: arrays only, no graph, and keys and values kept.

    decoder = CachedDecoder(fold(model, V), sequences, capacity)
    logits = decoder.next_logits()      # of the token after each sequence
    for sequence, token in zip(sequences, tokens): sequence.append(token)
    logits = decoder.next_logits()      # computes one position of each, not all

What the model sees of a text longer than its context is said in
`tinyalpaca.generation.uncached`, whose decoder gives the same logits, up to rounding, by running
the whole model for each token.

B sequences, N rows (positions of all sequences), C channels, H heads, D head size, F feed-forward
width, L context, S capacity of the cache, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.device import CPU
from tinyalpaca.generation.folded_weights import FoldedWeights
from tinyalpaca.generation.single_step import SingleStep
from tinyalpaca.generation.uncached import Tokens, window_start

Attend = Callable[[int, Any, Any], None]
PREFILL_SCORES = 1 << 22  # attention scores that are computed at a time


class CachedDecoder:
    """Logits from cached keys and values: one position of each sequence at a time.

    Args:
        weights: the folded model.
        sequences: token ids, at least one each; whoever owns the lists appends one token to each
            between calls.
        capacity: positions for which there is room; the longest that a sequence will become, if
            that is less than the context.

    Attributes:
        cache: (layers, B, 2, H, D + 1, S): keys, then values, positions last. The extra row of the
            values is all 1, so that the product of values and exp(scores) has the soft-max's
            denominator beside its numerators. That of the keys is unused.
        starts: where each sequence's window begins; -1 where nothing is cached.
        context: positions that the model sees at once.
        head_size: numbers of a key.
    """

    cache: Any

    def __init__(
        self, weights: FoldedWeights, sequences: Sequence[Tokens], capacity: int | None = None
    ) -> None:
        self.weights, self.sequences = weights, list(sequences)
        config = weights.config
        self.context = config.max_seq_len
        room = min(capacity or self.context, self.context)
        self.head_size = config.d_model // config.num_heads
        self._make_cache(room)
        self.starts = [-1] * len(self.sequences)
        self._single: SingleStep | None = None

    def next_logits(self) -> np.ndarray:
        """Logits of the token after each sequence, (B, V), in main memory."""
        late: list[int] = []
        for row, tokens in enumerate(self.sequences):
            start = self.starts[row]
            if start < 0 or len(tokens) - start > self.context:
                self.starts[row] = window_start(len(tokens), self.context)
                late.append(row)
        if late:
            self.prefill(late)
        if len(self.sequences) == 1 and self.weights.xp is np:
            return self._next_of_one()
        ids = np.array([tokens[-1] for tokens in self.sequences])
        places = np.array(
            [len(t) - 1 - s for t, s in zip(self.sequences, self.starts, strict=True)]
        )
        return self._step(ids, places)

    def remove(self, row: int) -> None:
        """Forget a sequence; the last one takes its place."""
        last = len(self.sequences) - 1
        self.sequences[row], self.starts[row] = self.sequences[last], self.starts[last]
        self.cache[:, row] = self.cache[:, last]
        del self.sequences[last], self.starts[last]
        self.cache = self.cache[:, :last]
        self._single = None

    def _make_cache(self, room: int) -> None:
        config, sequences = self.weights.config, len(self.sequences)
        shape = (config.num_layers, sequences, 2, config.num_heads, self.head_size + 1, room)
        self.cache = self.weights.xp.zeros(shape, self.weights.dtype)
        self.cache[:, :, 1, :, -1] = 1

    def _next_of_one(self) -> np.ndarray:
        tokens, place = self.sequences[0], len(self.sequences[0]) - 1 - self.starts[0]
        if self._single is None:
            self._single = SingleStep(self.weights, self.cache[:, 0])
        logits = self._single(tokens[-1], place)
        if logits is None:  # scores beyond what it can handle
            return self._step(np.array(tokens[-1:]), np.array([place]))
        return logits[None]

    def _step(self, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Logits (B, V) after one more token each; ids and places (their positions) are (B,)."""
        weights, xp = self.weights, self.weights.xp
        heads, size = weights.config.num_heads, self.head_size
        longest = int(places.max()) + 1
        same = longest == int(places.min()) + 1
        rows, places = xp.arange(len(ids)), xp.asarray(places)
        hidden = None  # what is beyond a sequence's end, (B, 1, 1, T)
        if not same:
            hidden = xp.where(xp.arange(longest) > places[:, None], -xp.inf, 0)[:, None, None]
            hidden = hidden.astype(weights.dtype)

        def attend(layer: int, qkv: Any, out: Any) -> None:
            cache = self.cache[layer]
            new = qkv[:, heads * size :].reshape(-1, 2, heads, size)  # (B, 2, H, D)
            if same:
                cache[:, :, :, :size, longest - 1] = new
            else:
                cache[rows, :, :, :size, places] = new
            q = qkv[:, : heads * size].reshape(-1, heads, 1, size)  # (B, H, 1, D)
            scores = xp.matmul(q, cache[:, 0, :, :size, :longest])  # (B, H, 1, T)
            if hidden is not None:
                scores += hidden
            mix_values(xp, scores, cache[:, 1, :, :, :longest], out)

        logits = run_layers(weights, xp.asarray(ids), places, attend)
        return CPU.asarray(logits)

    def prefill(self, rows: list[int]) -> None:
        """Cache keys and values of all tokens in the windows of these rows but the last ones."""
        windows = [self.sequences[row][self.starts[row] : -1] for row in rows]
        longest = max(map(len, windows))
        if longest == 0:
            return
        group = max(1, PREFILL_SCORES // (self.weights.config.num_heads * longest**2))
        for first in range(0, len(rows), group):
            part = windows[first : first + group]
            ids = np.zeros((len(part), longest), np.int64)  # what pads is behind, so nobody sees it
            for padded, window in zip(ids, part, strict=True):
                padded[: len(window)] = window
            self._fill(rows[first : first + group], ids)

    def _fill(self, rows: list[int], ids: np.ndarray) -> None:
        """Compute positions from 0 on and keep their keys and values; ids (B, T)."""

        def keep(layer: int, keys_values: Any) -> None:
            self._keep(layer, rows, keys_values)

        run_window(self.weights, ids, keep)

    def _keep(self, layer: int, rows: list[int], keys_values: Any) -> None:
        """Cache a layer's keys and values (rows, T, 2, H, D) of positions 0 to T - 1."""
        wanted, length = self.weights.xp.asarray(rows), keys_values.shape[1]
        kept = keys_values.transpose(0, 2, 3, 4, 1)
        self.cache[layer][wanted, :, :, : self.head_size, :length] = kept


def run_window(
    weights: FoldedWeights,
    ids: np.ndarray,
    keep: Callable[[int, Any], None] | None = None,
) -> Any:
    """Logits (B·T, V) of whole windows, ids (B, T), at positions 0 to T - 1.

    Args:
        keep: is given each layer's number, and its keys and values (B, T, 2, H, D).
    """
    xp, config = weights.xp, weights.config
    batch, length = ids.shape
    heads, size = config.num_heads, config.d_model // config.num_heads
    later = xp.triu(xp.full((length, length), -xp.inf, weights.dtype), 1)  # a query's later keys

    def attend(layer: int, qkv: Any, out: Any) -> None:
        packed = qkv.reshape(batch, length, 3, heads, size)
        if keep is not None:
            keep(layer, packed[:, :, 1:])
        q, k, v = packed.transpose(2, 0, 3, 1, 4)  # (B, H, T, D) each
        scores = xp.matmul(q, k.swapaxes(-1, -2)) + later  # (B, H, T, T)
        scores -= scores.max(axis=-1, keepdims=True)
        xp.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = xp.matmul(scores, v).swapaxes(1, 2)  # (B, T, H, D)
        out[...] = mixed.reshape(batch * length, heads * size)

    places = xp.tile(xp.arange(length), batch)
    return run_layers(weights, xp.asarray(ids).ravel(), places, attend)


def run_layers(weights: FoldedWeights, ids: Any, places: Any, attend: Attend) -> Any:
    """Logits (N, V) of tokens (N,) at positions (N,); all but attention treats each row alone.

    Args:
        attend: is given a layer's number, its queries, keys and values (N, 3C), and where to write
            the mixed values (N, C).
    """
    xp, config = weights.xp, weights.config
    c, pre_norm = config.d_model, config.pre_norm
    start = c if pre_norm else 0  # where a block's row begins; see FoldedLayer
    around_attention = xp.ones((len(ids), 2 * c + 1), weights.dtype)  # [x̂ | 1 | mixed values]
    around_ffn = xp.ones((len(ids), c + 1 + config.d_ff), weights.dtype)  # [x̂ | 1 | hidden]
    x = weights.tokens[ids]  # (N, C)
    if weights.positions is not None:
        x = x + weights.positions[places]
    around_attention[:, :c] = x
    for number, layer in enumerate(weights.layers):
        if pre_norm:
            normalise(weights, x, around_attention)
        qkv = xp.matmul(around_attention[:, : c + 1], layer.qkv)  # (N, 3C)
        if weights.rotation is not None:
            rotate(weights, qkv, places)
        attend(number, qkv, around_attention[:, c + 1 :])
        y = xp.matmul(around_attention[:, start:], layer.out)
        x = x + y if pre_norm else y
        normalise(weights, x, around_ffn)
        hidden = xp.matmul(around_ffn[:, : c + 1], layer.fc1)  # (N, F)
        around_ffn[:, c + 1 :] = activated(xp, hidden, config.activation)
        y = xp.matmul(around_ffn[:, start:], layer.fc2)
        x = x + y if pre_norm else y
        if not pre_norm:
            normalise(weights, x, around_attention)
    if pre_norm:
        normalise(weights, x, around_attention)
    return xp.matmul(around_attention[:, : c + 1], weights.head)  # (N, V)


def normalise(weights: FoldedWeights, x: Any, out: Any) -> None:
    """Write x/√(mean(x²) + ε) to the first C columns of `out`; x (N, C)."""
    xp, c = weights.xp, weights.config.d_model
    square = xp.einsum("nc,nc->n", x, x)
    xp.multiply(x, (1 / xp.sqrt(square / c + weights.eps))[:, None], out=out[:, :c])


def rotate(weights: FoldedWeights, qkv: Any, places: Any) -> None:
    """Turn queries and keys (the first 2C columns of qkv) by their positions, in place."""
    turns = weights.rotation[places][:, None]  # (N, 1, D/2)
    pairs = qkv.view(weights.rotation.dtype).reshape(len(qkv), -1, turns.shape[-1])  # (N, 3H, D/2)
    pairs[:, : 2 * weights.config.num_heads] *= turns


def activated(xp: Any, x: Any, activation: str) -> Any:
    """The activation of the feed-forward network, as `FeedForwardNetwork` has it."""
    if activation == "relu":
        return xp.maximum(x, 0, out=x)
    if activation == "silu":
        return ops.activations.silu.forward(xp, x)[0]
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    return ops.activations.gelu.forward(xp, x, approximate=approximate)[0]


def mix_values(xp: Any, scores: Any, values: Any, out: Any) -> None:
    """Soft-max the scores and mix the values.

    Args:
        scores: (B, H, 1, T); they are overwritten.
        values: (B, H, D + 1, T), the last of D + 1 being 1.
        out: (B, H·D), any row stride.
    """
    scores -= scores.max(axis=-1, keepdims=True)
    xp.exp(scores, out=scores)
    mixed = xp.matmul(values, scores.swapaxes(-1, -2))[..., 0]  # (B, H, D + 1)
    out[...] = (mixed[..., :-1] / mixed[..., -1:]).reshape(out.shape)
