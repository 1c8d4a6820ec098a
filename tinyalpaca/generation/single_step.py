"""One more token for each of few sequences on the CPU, in as few NumPy calls as possible.

In a small model the overhead of a NumPy call, about a microsecond, exceeds the time of its
arithmetic. So each matmul, norm and activation is one or two calls here, into buffers that are made
once. Two things differ from the model:

- The softmax does not subtract the largest score first. The result is the same unless a score is
  beyond the range of exp. The denominators show that at the end of a token: if one is outside of a
  safe range, this token is computed again, and from then on the largest score is subtracted.
- All activations are one-dimensional, so that `ndarray.dot` calls BLAS's matrix-vector product
  directly.

The weights of a small model are folded (`folded_weights`). A large model's own weights are used
(`plain_weights`), because reading them takes most of the time.

C channels, D head size, F feed-forward width, H heads of queries, K of keys and values, S capacity
of the cache, T positions so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import nan, sqrt
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.nn import Module
from tinyalpaca.generation.decoder import CachedDecoder
from tinyalpaca.generation.folded_weights import Layer, Norm, Weights, activate, qkv_columns
from tinyalpaca.generation.windows import Tokens
from tinyalpaca.key_values import KeyValues

SMALLEST, LARGEST = 1e-30, 1e30  # the safe range of a softmax's denominator
# Prompts of up to SHORT tokens are computed faster one by one than by the model, if its layers have
# up to SMALL weights, so that the overhead of calls exceeds the time of arithmetic.
SHORT, SMALL = 10, 1 << 20


class FewDecoder(CachedDecoder):
    """Logits of few sequences, each computed alone.

    Args:
        weights: the model's weights.
        The others: as for `CachedDecoder`.

    Attributes:
        steps: a `SingleStep` for each sequence.
    """

    def __init__(
        self,
        model: Any,
        weights: Weights,
        sequences: Sequence[Tokens],
        capacity: int | None = None,
        modules: Sequence[Module] = (),
    ) -> None:
        super().__init__(model, sequences, capacity, modules)
        self.weights = weights
        self.steps: list[SingleStep] = [SingleStep(weights, self.room) for _ in sequences]
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
    """Call it with a token and its position; it returns the logits of the next token.

    The logits are in the same buffer each time.

    Args:
        weights: the model's weights.
        room: S.

    Attributes:
        cache: (layers, 2, K, D + 1, S): keys, then values, with positions as the last axis. The
            extra row of the values is all 1, so that the matmul of values and exp(scores) also
            gives the softmax's denominators. The extra row of the keys is unused.
        careful: whether the largest score is subtracted.
    """

    weights: Weights
    careful: bool

    def __init__(self, weights: Weights, room: int) -> None:
        config, dtype = weights.config, weights.dtype
        c, heads, groups = config.d_model, config.num_heads, config.kv_heads
        size, turned = config.size_of_head, (heads + groups) * config.size_of_head
        self.weights, self.careful = weights, False
        self.cache: np.ndarray = np.zeros((config.num_layers, 2, groups, size + 1, room), dtype)
        self.cache[:, 1, :, -1] = 1
        self._norm = partial(_norm, channels=c, eps=weights.eps, dtype=dtype)
        self._x, self._block = np.empty(c, dtype), np.empty(c, dtype)
        self._logits = np.empty(weights.head.shape[1], dtype)
        self._qkv = np.empty(turned + groups * size, dtype)
        self._q = self._qkv[: heads * size].reshape(groups, -1, size)
        self._kv = self._qkv[heads * size :].reshape(2, groups, size)
        if weights.rotation is not None:
            pairs = self._qkv[:turned].view(weights.rotation.dtype)
            self._pairs = pairs.reshape(heads + groups, -1)
        self._scores = np.empty(heads * room, dtype)
        self._around_attention = np.ones(c + 1 + heads * size, dtype)  # [x̂ | 1 | mixed values]
        self._attention_norm = self._around_attention[:c]
        self._values = self._around_attention[c + 1 :].reshape(groups, -1, size)
        self._around_ffn = np.ones(c + 1 + config.d_ff, dtype)  # [x̂ | 1 | hidden]
        self._ffn_norm = self._around_ffn[:c]
        mixed = np.empty((config.num_layers, groups, size + 1, heads // groups), dtype)
        self._denominators = mixed[:, :, size]
        each = zip(weights.layers, self.cache, mixed, strict=True)
        self._layers = [(*self._calls(layer), *_parts(kept, both)) for layer, kept, both in each]
        self._last_norm = self._norm(weights.last_norm)
        given = self._around_attention[: len(weights.head)]
        self._head = _product(given, weights.head, self._logits, weights.head_bias)

    def __call__(self, token: int, place: int, wanted: bool = True) -> np.ndarray:
        """Logits (V,). An overflow is detected here, so the caller should ignore NumPy's warnings.

        Args:
            wanted: whether logits are wanted; if not, the returned array holds those of an earlier
                token.
        """
        self._run(token, place)
        if not self.careful:
            # Finding the smallest is faster in a list than by NumPy.
            found = self._denominators.ravel().tolist()
            if not (min(found) > SMALLEST and max(found) < LARGEST):
                self.careful = True
                self._run(token, place)
        if wanted:
            self._head()
        return self._logits

    def _run(self, token: int, place: int) -> None:
        """Compute the output of the last norm, in `_attention_norm`."""
        weights, length, x, block = self.weights, place + 1, self._x, self._block
        pre_norm, rotation, positions = weights.config.pre_norm, weights.rotation, weights.positions
        attention_norm, ffn_norm, q, kv = self._attention_norm, self._ffn_norm, self._q, self._kv
        size = weights.config.num_heads * length
        scores = self._scores[:size].reshape(*q.shape[:2], length)  # (K, H/K, T)
        transposed = scores.swapaxes(1, 2)
        first = x if pre_norm else attention_norm
        if positions is None:
            first[:] = weights.tokens[token]
        else:
            np.add(weights.tokens[token], positions[place], out=first)
        for norm1, qkv, out, norm2, fc1, act, fc2, cache, keys, values, parts in self._layers:
            if pre_norm:
                norm1(x, attention_norm)
            qkv()
            if rotation is not None:
                np.multiply(self._pairs, rotation[place], out=self._pairs)
            cache[..., place] = kv
            np.matmul(q, keys[..., :length], out=scores)
            if self.careful:
                scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            both, numerators, denominators = parts
            np.matmul(values[..., :length], transposed, out=both)
            np.divide(numerators, denominators, out=self._values)
            out()
            if pre_norm:
                x += block
            norm2(x if pre_norm else block, ffn_norm)
            fc1()
            act()
            fc2()
            if pre_norm:
                x += block
            else:
                norm1(block, attention_norm)
        if pre_norm:
            self._last_norm(x, attention_norm)

    def _calls(self, layer: Layer) -> tuple[Callable[..., Any], ...]:
        """The functions of a layer: norm, projection of queries, keys and values, output
        projection; then norm and the feed-forward network, in three functions."""
        weights, config = self.weights, self.weights.config
        hidden = self._around_ffn[config.d_model + 1 :]
        wide = np.empty_like(hidden, shape=layer.fc1.shape[1:])
        wide = hidden if wide.shape == hidden.shape else wide
        attention_out = self._around_attention[-len(layer.out) :]
        ffn_out = self._around_ffn[-len(layer.fc2) :]
        residuals: tuple[Any, Any] = (
            None,
            None,
        )  # pre-norm adds the block to x; folded matrices contain the residual
        if not (weights.folded or config.pre_norm):
            residuals = self._attention_norm, self._ffn_norm
        b_qkv, b_out, b_fc1, b_fc2 = layer.biases
        norm1, norm2 = map(self._norm, layer.norms)
        return (
            norm1,
            self._queries_keys_values(layer.qkv, b_qkv),
            _product(attention_out, layer.out, self._block, b_out, residuals[0]),
            norm2,
            _product(self._around_ffn[: len(layer.fc1)], layer.fc1, wide, b_fc1),
            _activation(config.activation, wide, hidden, weights.folded),
            _product(ffn_out, layer.fc2, self._block, b_fc2, residuals[1]),
        )

    def _queries_keys_values(self, matrix: Any, bias: Any) -> Callable[..., Any]:
        weights, qkv = self.weights, self._qkv
        given = self._around_attention[: len(matrix)]
        if weights.folded:
            return _product(given, matrix, qkv)
        order, scale = qkv_columns(weights.config)
        scale = scale.astype(qkv.dtype)
        in_order = qkv if weights.rotation is None else np.empty_like(qkv)
        product = _product(given, matrix, in_order, bias)

        def scaled() -> None:
            product()
            if in_order is not qkv:
                in_order.take(order, out=qkv, mode="clip")
            np.multiply(qkv, scale, out=qkv)

        return scaled


Normalise = Callable[[np.ndarray, np.ndarray], Any]  # x and out, (C,)


def _norm(norm: Norm | None, channels: int, eps: float, dtype: Any) -> Normalise:
    """A function that normalizes; if the norm is folded (None) it only divides."""
    root, sum_eps = sqrt(channels), channels * eps

    def divide(x: np.ndarray, out: np.ndarray) -> None:
        """x/√(mean(x²) + ε), computed as x·√C/√(Σx² + Cε)."""
        try:
            scale = root / sqrt(x.dot(x) + sum_eps)
        except ZeroDivisionError:  # x is 0, and ε underflows in float32: 0/0, as in the model
            scale = nan
        np.multiply(x, scale, out=out)

    if norm is None:
        return divide
    gain, shift, centred = norm
    mean_of = np.full(channels, 1 / channels, dtype)

    def whole(x: np.ndarray, out: np.ndarray) -> None:
        if centred:
            # Twice, because the mean is rounded, and may be much larger than the deviations.
            np.subtract(x, x.dot(mean_of), out=out)
            x = np.subtract(out, out.dot(mean_of), out=out)
        divide(x, out)
        np.multiply(out, gain, out=out)
        if shift is not None:
            np.add(out, shift, out=out)

    return whole


def _parts(kept: np.ndarray, both: np.ndarray) -> tuple[Any, ...]:
    """Views of a layer's cache, and of attention's numerators and denominators."""
    size = both.shape[1] - 1
    apart = both[:, :size].swapaxes(1, 2), both[:, size:].swapaxes(1, 2)
    return kept[:, :, :size], kept[0, :, :size], kept[1], (both, *apart)


def _product(given: Any, matrix: Any, out: Any, *added: Any) -> Callable[..., Any]:
    """A function that computes out = given·matrix + the terms in `added` that are not None."""
    product = partial(given.dot, matrix, out)
    terms = [term for term in added if term is not None]
    if not terms:
        return product

    def with_terms() -> None:
        product()
        for term in terms:
            np.add(out, term, out=out)

    return with_terms


def _activation(kind: str, given: Any, out: Any, folded: bool) -> Callable[..., Any]:
    """A function that computes out = activation(given), in place unless it is SwiGLU."""
    if kind == "relu":
        return partial(np.maximum, given, np.zeros((), given.dtype), out=out)
    if folded or kind == "gelu":
        return partial(activate, out, kind)
    slope, cubic = ops.activations.SLOPE, ops.activations.CUBIC
    gate, passed = given[: len(out)], given[len(out) :]
    minus = np.empty_like(gate)

    def open_gate() -> None:
        """x·σ(u) as x/(1 + e^-u), which is right even if e^-u overflows; u = x, or GELU's u."""
        if kind == "gelu_tanh":
            np.multiply(gate, gate, out=minus)
            np.multiply(minus, -slope * cubic, out=minus)
            np.subtract(minus, slope, out=minus)
            np.multiply(minus, gate, out=minus)
        else:
            np.negative(gate, out=minus)
        np.exp(minus, out=minus)
        np.add(minus, 1, out=minus)
        np.divide(gate, minus, out=out)
        if len(passed):
            np.multiply(out, passed, out=out)

    return open_gate
