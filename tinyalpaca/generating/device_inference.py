"""Running the model for generation on a GPU: keys and values kept there, one graph a token.

    inference = DeviceInference(folded, Device("gpu"))
    decoder = inference.decoder(sequences, capacity)     # is used as a CachedDecoder is
    logits = decoder.next_logits()

What the model sees is what `tinyalpaca.generating.uncached` says, and the logits are those of
`tinyalpaca.generating.inference`, up to rounding. The kernels are `minigrad.kernels.cuda.decode`.

A token of all sequences costs **one copy to the device** (ids and places, 8 bytes a sequence),
**one graph launch** and **one copy back** (the logits); choosing tokens is left to the host, so all
of `tinyalpaca.generating.sampling` applies. The graph holds 5 launches a layer and 2 more. Prompts,
and windows that have slid, are computed for all their positions at once, in 6 launches a layer.

B sequences, N rows (positions of all sequences), C channels, H heads, D head size, F feed-forward
width, L context, S room of the cache, V vocabulary.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.device import Device, cupy
from minigrad.kernels.cuda import decode
from minigrad.kernels.cuda.compile import REAL
from minigrad.parallel.capture import Captured
from tinyalpaca.generating.device_weights import DeviceWeights
from tinyalpaca.generating.folded_weights import FoldedWeights
from tinyalpaca.generating.uncached import Tokens, window_start

WARM_UP = 8  # tokens that run kernel by kernel: a graph pays for itself after some dozens
ROOM = 64  # the cache's room is a multiple of it, so that calls of many lengths can share it
PREFILL_ROWS, PREFILL_SCORES = 1 << 16, 1 << 23  # that are computed at a time
NOBODY = -1  # the place of a slot that no sequence has


class Scratch:
    """Arrays for N rows: what they are, and what is computed of them."""

    def __init__(self, weights: DeviceWeights, count: int, room: int) -> None:
        config, xp = weights.config, cupy()
        c, dtype = config.d_model, weights.dtype
        self.inputs = xp.empty((3, count), np.int32)
        self.rows = decode.Rows(*(self.inputs[i] for i in range(3)))
        self.x, self.other = xp.empty((count, c), dtype), xp.empty((count, c), dtype)
        self.qkv, self.mixed = xp.empty((count, 3 * c), dtype), xp.empty((count, c), dtype)
        self.hidden = xp.empty((count, config.d_ff), dtype)
        self.scores = xp.empty((count, config.num_heads, room), dtype)


class TokenStep:
    """One more token of each of B sequences, which have a slot in the cache each.

    Args:
        weights: the model's.
        slots: B.
        room: S, positions that a slot has.
        graph: replay a CUDA graph after some tokens; False launches every kernel, always.
    """

    def __init__(self, weights: DeviceWeights, slots: int, room: int, graph: bool = True) -> None:
        config, xp, dtype = weights.config, cupy(), weights.dtype
        self.weights, self.slots, self.room = weights, slots, room
        layers, heads = config.num_layers, config.num_heads
        size = config.d_model // heads
        keys = xp.empty((layers, slots, heads, size, room), dtype)
        values = xp.empty((layers, slots, heads, room, size), dtype)
        self.cache = [decode.Cache(keys[i], values[i], weights.rotation) for i in range(layers)]
        self.logits = xp.empty((slots, weights.head.outputs), dtype)
        self._scratch = Scratch(weights, slots, room)
        # A run and its replay keep the same numbers in the cache, so the logits, in which all that
        # was computed comes together, are what to compare.
        self.captured = Captured(
            self._run, [self.logits], label="token step", enabled=graph, warm_up=WARM_UP
        )
        self._owner: Any = None

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Logits (B, V) in main memory; inputs (3, B) int32: ids, places, slots."""
        self._scratch.inputs.set(inputs)
        self.captured()
        return self.logits.get()

    def prefill(self, inputs: np.ndarray) -> None:
        """Keep keys and values of rows; inputs (3, N), a sequence's places in their order."""
        most = PREFILL_SCORES // (self.weights.config.num_heads * self.room)
        most = min(max(1, most), PREFILL_ROWS)
        for first in range(0, inputs.shape[1], most):
            part = np.ascontiguousarray(inputs[:, first : first + most])
            scratch = Scratch(self.weights, part.shape[1], self.room)
            scratch.inputs.set(part)
            run_layers(self.weights, self.cache, scratch, one_each=False)

    def lend_to(self, owner: object) -> None:
        """The step is busy for as long as `owner` lives."""
        self._owner = weakref.ref(owner)

    @property
    def idle(self) -> bool:
        """Whether nobody uses it."""
        return self._owner is None or self._owner() is None

    def _run(self) -> None:
        x = run_layers(self.weights, self.cache, self._scratch, one_each=True)
        head, eps = self.weights.head, self.weights.eps
        decode.linear(x, head.weight, head.bias, self.logits, eps=eps)


def run_layers(
    weights: DeviceWeights, cache: Sequence[decode.Cache], scratch: Scratch, one_each: bool
) -> Any:
    """What comes out of the last layer, (N, C), for the rows that `scratch` says.

    Args:
        one_each: a slot is in one row only. Otherwise all rows are kept in a layer's cache before
            any looks at it; and as logits are not wanted, the last layer ends there.
    """
    config, eps, rows = weights.config, weights.eps, scratch.rows
    pre_norm, activation = config.pre_norm, config.activation
    x, other = scratch.x, scratch.other
    decode.embed(weights.tokens, weights.positions, rows, x)
    for number, layer in enumerate(weights.layers):
        # A post-norm model has no norm between the embeddings and its first layer.
        first_eps = eps if pre_norm or number else None
        decode.linear(x, layer.qkv.weight, layer.qkv.bias, scratch.qkv, eps=first_eps)
        if not one_each:
            decode.append(scratch.qkv, cache[number], rows)
            if number == len(weights.layers) - 1:
                break
        decode.attend(
            *(scratch.qkv, cache[number], rows, scratch.scores, scratch.mixed), append=one_each
        )
        _add_block(pre_norm, layer.out, x, scratch.mixed, other, first_eps)
        x, other = other, x
        fc1 = layer.fc1
        decode.linear(x, fc1.weight, fc1.bias, scratch.hidden, eps=eps, activation=activation)
        _add_block(pre_norm, layer.fc2, x, scratch.hidden, other, eps)
        x, other = other, x
    return x


def _add_block(pre_norm: bool, product: Any, x: Any, block: Any, y: Any, eps: float | None) -> None:
    """y = x + W block + b. Where post-norm, that x is normalised and a part of the product."""
    if pre_norm:
        decode.linear(None, product.weight, product.bias, y, more=block, residual=x)
    else:
        decode.linear(x, product.weight, product.bias, y, more=block, eps=eps)


class DeviceDecoder:
    """Logits from keys and values that are kept on the device.

    Args:
        step: it has a slot for each sequence; nobody else uses it meanwhile.
        sequences: token ids, at least one each; whoever owns the lists appends one token to each
            between calls.
    """

    def __init__(self, step: TokenStep, sequences: Sequence[Tokens]) -> None:
        self.step, self.sequences = step, list(sequences)
        self._context = step.weights.config.max_seq_len
        self._starts = [-1] * len(self.sequences)  # where each window begins; -1: nothing is cached
        self._slots = list(range(len(self.sequences)))
        step.lend_to(self)

    def next_logits(self) -> np.ndarray:
        """Logits of the token after each sequence, (B, V), in main memory."""
        late: list[int] = []
        for row, tokens in enumerate(self.sequences):
            start = self._starts[row]
            if start < 0 or len(tokens) - start > self._context:
                self._starts[row] = window_start(len(tokens), self._context)
                late.append(row)
        if late:
            self._prefill(late)
        inputs = np.empty((3, self.step.slots), np.int32)
        inputs[1], inputs[2] = NOBODY, np.arange(self.step.slots)
        places = [len(t) - 1 - s for t, s in zip(self.sequences, self._starts, strict=True)]
        inputs[:2, self._slots] = [tokens[-1] for tokens in self.sequences], places
        return self.step(inputs)[self._slots]

    def remove(self, row: int) -> None:
        """Forget a sequence; the last one takes its place."""
        last = len(self.sequences) - 1
        self.sequences[row] = self.sequences[last]
        self._starts[row], self._slots[row] = self._starts[last], self._slots[last]
        del self.sequences[last], self._starts[last], self._slots[last]

    def _prefill(self, rows: list[int]) -> None:
        """Cache keys and values of all tokens in the windows of these rows but the last ones."""
        parts = []
        for row in rows:
            window = self.sequences[row][self._starts[row] : -1]
            slots = [self._slots[row]] * len(window)
            parts.append(np.array([window, range(len(window)), slots], np.int32))
        inputs = np.concatenate(parts, axis=1)
        if inputs.shape[1]:
            self.step.prefill(inputs)


def unsupported(dtype: Any) -> str | None:
    """Why a model of this dtype cannot be run here, or None if it can."""
    if np.dtype(dtype).char in REAL:
        return None
    return f"the CUDA kernels of generation compute in float32 and float64, not in {dtype}"


class DeviceInference:
    """A model on a GPU, ready to generate.

    Args:
        folded: the model's weights, in main memory.
        device: where to compute.
        graph: see `TokenStep`.
    """

    def __init__(self, folded: FoldedWeights, device: Device, graph: bool = True) -> None:
        self.folded, self.graph = folded, graph
        self.weights = DeviceWeights(folded, device)
        self._step: TokenStep | None = None  # the last one: cache, scratch and graph are kept

    def decoder(self, sequences: Sequence[Tokens], capacity: int) -> DeviceDecoder:
        """A decoder with room for `capacity` positions of each sequence (at most the context)."""
        return DeviceDecoder(self._step_for(len(sequences), capacity), sequences)

    def prepare(self) -> None:
        """Compile the kernels, and make what one sequence needs."""
        step = self._step_for(1, self.weights.config.max_seq_len)
        step(np.array([[0], [NOBODY], [0]], np.int32))

    def _step_for(self, slots: int, capacity: int) -> TokenStep:
        context = self.weights.config.max_seq_len
        needed = min(capacity, context)
        step = self._step
        if step is None or not step.idle or step.slots != slots or step.room < needed:
            room = min(context, -(-needed // ROOM) * ROOM)
            step = self._step = TokenStep(self.weights, slots, room, self.graph)
        return step
