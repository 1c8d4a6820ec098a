"""One more token of each of few sequences on the CPU, in as few NumPy calls as possible.

At this size a call costs more than its arithmetic, about a microsecond, so each of the model's
products, norms and activations is one or two calls here, with folded weights and into buffers that
are made once. Two things differ from there:

- The soft-max does not subtract the largest score first. That is the same unless a score is beyond
  the range of exp, so the denominators are looked at when the token is done: if one is out of a
  safe range, the token is computed once more, and all that follow, with the largest subtracted.
- Everything is one-dimensional, so that `ndarray.dot` goes straight to BLAS's product of a matrix
  and a vector.

C channels, D head size, F feed-forward width, H heads, S room of the cache, T positions so far,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from minigrad.nn import Module
from tinyalpaca.generation.decoder import CachedDecoder
from tinyalpaca.generation.folded_weights import FoldedWeights, activate
from tinyalpaca.generation.windows import Tokens
from tinyalpaca.key_values import KeyValues

SMALLEST, LARGEST = 1e-30, 1e30  # of a soft-max's denominator
# So many tokens of a prompt are computed in less time one by one than by the model, if its layers
# have so few weights that calls cost more than arithmetic.
SHORT, SMALL = 10, 1 << 20


class FewDecoder(CachedDecoder):
    """Logits of few sequences, each computed alone.

    Args:
        weights: the folded model.
        The others: as for `CachedDecoder`.

    Attributes:
        steps: one for each sequence.
    """

    def __init__(
        self,
        model: Any,
        weights: FoldedWeights,
        sequences: Sequence[Tokens],
        capacity: int | None = None,
        modules: Sequence[Module] = (),
    ) -> None:
        super().__init__(model, sequences, capacity, modules)
        self.weights = weights
        self.steps = [SingleStep(weights, self.room) for _ in sequences]
        size = sum(m.size for w in weights.layers for m in (w.qkv, w.out, w.fc1, w.fc2))
        self._short = SHORT if size <= SMALL else 0

    def _prefill(self, rows: list[int]) -> None:
        longer = []
        for row in rows:
            window = self.windows.before_last(row)
            if len(window) > self._short:
                longer.append(row)
                continue
            for place, token in enumerate(window):
                self.steps[row](token, place, wanted=False)
        super()._prefill(longer)

    def _step(self, ids: list[int], places: list[int]) -> np.ndarray:
        if len(ids) == 1:
            return self.steps[0](ids[0], places[0])[None]
        each = zip(self.steps, ids, places, strict=True)
        return np.stack([step(token, place) for step, token, place in each])

    def _keep(self, rows: list[int], cache: KeyValues, row: int, length: int) -> None:
        for number, kept in enumerate(self.weights.keys_values(self.model, cache, row, length)):
            for each in rows:
                self.steps[each].cache[number, :, :, :-1, :length] = kept.swapaxes(-1, -2)

    def _forget(self, row: int) -> None:
        self.steps[row] = self.steps[-1]
        del self.steps[-1]


class SingleStep:
    """Call it with a token and its position; it returns the logits of the next.

    Args:
        weights: the folded model.
        room: S.

    Attributes:
        cache: (layers, 2, H, D + 1, S): keys, then values, positions last. The extra row of the
            values is all 1, so that the product of values and exp(scores) has the soft-max's
            denominator beside its numerators. That of the keys is unused.
        careful: whether the largest score is subtracted.

    The logits are the same buffer each time.
    """

    def __init__(self, weights: FoldedWeights, room: int) -> None:
        config, dtype = weights.config, weights.dtype
        c, heads = config.d_model, config.num_heads
        self.careful = False
        self.cache = np.zeros((config.num_layers, 2, heads, c // heads + 1, room), dtype)
        self.cache[:, 1, :, -1] = 1
        self._config = config
        self._tokens, self._positions, self._head = weights.tokens, weights.positions, weights.head
        size = c // heads
        first = c if config.pre_norm else 0  # see FoldedLayer
        self._layers = [
            (
                layer.qkv,
                layer.out,
                layer.fc1,
                layer.fc2,
                kept[:, :, :size],
                kept[0, :, :size],
                kept[1],
            )
            for layer, kept in zip(weights.layers, self.cache, strict=True)
        ]
        self._x = np.empty(c, dtype)
        self._block = np.empty(c, dtype)
        self._logits = np.empty(weights.head.shape[1], dtype)
        self._qkv = np.empty(3 * c, dtype)
        self._q = self._qkv[:c].reshape(heads, 1, size)
        self._kv = self._qkv[c:].reshape(2, heads, size)
        self._rotation = weights.rotation
        if weights.rotation is not None:
            self._pairs = self._qkv[: 2 * c].view(weights.rotation.dtype).reshape(2 * heads, -1)
        self._scores = np.empty(heads * room, dtype)
        mixed = np.empty((config.num_layers, heads, size + 1, 1), dtype)
        self._denominators = mixed.reshape(-1, size + 1)[:, size]
        self._mixed = [(both, both[:, :size, 0], both[:, size:, 0]) for both in mixed]
        around_attention = np.ones(2 * c + 1, dtype)  # [x̂ | 1 | mixed values]
        self._attention_norm = around_attention[:c]
        self._attention_in = around_attention[: c + 1]
        self._values = around_attention[c + 1 :].reshape(heads, size)
        self._attention_out = around_attention[first:]
        around_ffn = np.ones(c + 1 + config.d_ff, dtype)  # [x̂ | 1 | hidden]
        self._ffn_norm = around_ffn[:c]
        self._ffn_in = around_ffn[: c + 1]
        self._hidden = around_ffn[c + 1 :]
        self._ffn_out = around_ffn[first:]
        self._zero = np.zeros((), dtype)
        self._root = sqrt(c)
        self._sum_eps = c * weights.eps

    def __call__(self, token: int, place: int, wanted: bool = True) -> np.ndarray:
        """(V,); NumPy's warnings of what overflows are for the caller to ignore: it is found.

        Args:
            wanted: whether logits are; without them, those returned are of another token.
        """
        self._run(token, place)
        if not self.careful:
            found = self._denominators.tolist()  # quicker than NumPy's own smallest of so few
            if not (min(found) > SMALLEST and max(found) < LARGEST):
                self.careful = True
                self._run(token, place)
        if wanted:
            self._attention_in.dot(self._head, out=self._logits)
        return self._logits

    def _run(self, token: int, place: int) -> None:
        config, length = self._config, place + 1
        pre_norm, relu = config.pre_norm, config.activation == "relu"
        x, block, qkv, hidden, heads = (
            self._x,
            self._block,
            self._qkv,
            self._hidden,
            config.num_heads,
        )
        scores = self._scores[: heads * length].reshape(heads, 1, length)
        transposed = scores.swapaxes(1, 2)  # (H, T, 1)
        first = x if pre_norm else self._attention_norm
        if self._positions is None:
            first[:] = self._tokens[token]
        else:
            np.add(self._tokens[token], self._positions[place], out=first)
        for weights, (both, numerators, denominators) in zip(
            self._layers, self._mixed, strict=True
        ):
            w_qkv, w_out, w_fc1, w_fc2, cache, keys, values = weights
            if pre_norm:
                self._normalise(x, self._attention_norm)
            self._attention_in.dot(w_qkv, out=qkv)
            if self._rotation is not None:
                np.multiply(self._pairs, self._rotation[place], out=self._pairs)
            cache[..., place] = self._kv
            np.matmul(self._q, keys[..., :length], out=scores)
            if self.careful:
                scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            np.matmul(values[..., :length], transposed, out=both)
            np.divide(numerators, denominators, out=self._values)
            self._attention_out.dot(w_out, out=block)
            if pre_norm:
                x += block
            self._normalise(x if pre_norm else block, self._ffn_norm)
            self._ffn_in.dot(w_fc1, out=hidden)
            if relu:
                np.maximum(hidden, self._zero, out=hidden)
            else:
                activate(hidden, config.activation)
            self._ffn_out.dot(w_fc2, out=block)
            if pre_norm:
                x += block
            else:
                self._normalise(block, self._attention_norm)
        if pre_norm:
            self._normalise(x, self._attention_norm)

    def _normalise(self, x: np.ndarray, out: np.ndarray) -> None:
        """x/√(mean(x²) + ε), as x·√C/√(Σx² + Cε)"""
        np.multiply(x, self._root / sqrt(x.dot(x) + self._sum_eps), out=out)
