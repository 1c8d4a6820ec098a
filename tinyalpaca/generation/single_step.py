"""One more token of one sequence on the CPU, in as few NumPy calls as possible.

At this size a call costs more than its arithmetic, about a microsecond, so each of the products,
norms and activations of `tinyalpaca.generation.inference.run_layers` is one or two calls here,
into buffers that are made once. Two things differ from there:

- The soft-max does not subtract the largest score first. That is the same unless a score is beyond
  the range of exp, so the denominators are looked at when the token is done: if one is out of a
  safe range, the step returns None, and its caller computes the token the other way.
- Everything is one-dimensional, so that `ndarray.dot` goes straight to BLAS's product of a matrix
  and a vector.

C channels, D head size, F feed-forward width, H heads, S capacity, T positions so far,
V vocabulary.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from minigrad import ops
from tinyalpaca.generation.folded_weights import FoldedWeights

SMALLEST, LARGEST = 1e-30, 1e30  # of a soft-max's denominator


class SingleStep:
    """Call it with a token and its position; it returns the logits of the next, or None.

    Args:
        weights: the folded model.
        cache: (layers, 2, H, D + 1, S), see `CachedDecoder.cache`.

    The logits are the same buffer each time.
    """

    def __init__(self, weights: FoldedWeights, cache: np.ndarray) -> None:
        config, dtype = weights.config, weights.dtype
        c, heads = config.d_model, config.num_heads
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
            for layer, kept in zip(weights.layers, cache, strict=True)
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
        self._scores = np.empty(heads * cache.shape[-1], dtype)
        mixed = np.empty((config.num_layers, heads, size + 1, 1), dtype)
        self._denominators = mixed[:, :, size]
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

    def __call__(self, token: int, place: int) -> np.ndarray | None:
        """(V,), or None if a score was out of range."""
        with np.errstate(all="ignore"):  # what overflows is found below
            self._run(token, place)
        low, high = self._denominators.min(), self._denominators.max()
        return self._logits if low > SMALLEST and high < LARGEST else None

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
                self._activate(hidden)
            self._ffn_out.dot(w_fc2, out=block)
            if pre_norm:
                x += block
            else:
                self._normalise(block, self._attention_norm)
        if pre_norm:
            self._normalise(x, self._attention_norm)
        self._attention_in.dot(self._head, out=self._logits)

    def _normalise(self, x: np.ndarray, out: np.ndarray) -> None:
        """x/√(mean(x²) + ε), as x·√C/√(Σx² + Cε)"""
        np.multiply(x, self._root / sqrt(x.dot(x) + self._sum_eps), out=out)

    def _activate(self, hidden: np.ndarray) -> None:
        """What is not ReLU, in place."""
        if self._config.activation == "silu":
            hidden[:] = ops.activations.silu.forward(np, hidden)[0]
        else:
            kind = "tanh" if self._config.activation == "gelu_tanh" else "none"
            hidden[:] = ops.activations.gelu.forward(np, hidden, approximate=kind)[0]
