"""One more token for each of some sequences on a GPU: the cache, the workspace and the graphs.

    step = TokenStep(weights, slots, room)
    step.prefill(inputs)                 # a prompt, all but its last token
    step.place(inputs)                   # each slot's token and position
    logits = step.logits_of_next()       # (B, V), or:
    step.supply(settings); step.draw(5); tokens = step.tokens()    # five tokens, one after another

B slots, N rows (slots, or positions of a prompt), C channels, H heads, D head size, F feed-forward
width, S capacity of the cache, V vocabulary.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.device import Device, cupy
from minigrad.parallel import Captured
from tinyalpaca.generation.cuda import decode, draw
from tinyalpaca.generation.device_weights import DeviceWeights
from tinyalpaca.generation.readable import LEVELS, STATES, Readable

WARM_UP = 8  # tokens computed kernel by kernel before a capture, which pays off after some dozens
ROUNDS = 32  # rounds whose random numbers are copied at once
PREFILL_ROWS, PREFILL_SCORES = 1 << 16, 1 << 23  # rows and scores that are computed at once


class Scratch:
    """The workspace for N rows: their inputs and their activations."""

    x: Any
    other: Any
    qkv: Any
    mixed: Any

    def __init__(self, weights: DeviceWeights, count: int, room: int) -> None:
        config, xp = weights.config, cupy()
        c, dtype = config.d_model, weights.dtype
        self.inputs: Any = xp.empty((4, count), np.int32)  # ids, places, slots; draws taken
        self.rows: decode.Rows = decode.Rows(*(self.inputs[i] for i in range(3)))
        self.x, self.other = xp.empty((count, c), dtype), xp.empty((count, c), dtype)
        self.qkv, self.mixed = xp.empty((count, 3 * c), dtype), xp.empty((count, c), dtype)
        self.hidden: Any = xp.empty((count, config.d_ff), dtype)
        self.scores: Any = xp.empty((count, config.num_heads, room), dtype)


class Token:
    """The computation of a token, on arrays whose addresses do not change.

    Attributes:
        inputs: (4, B) int32: ids, positions (negative: the slot is unused), slots, draws so far.
        cache: keys and values of each layer.
        logits: (B, V).
        settings, chosen, rules: see `draw.draw`.
    """

    weights: DeviceWeights

    def __init__(self, weights: DeviceWeights, slots: int, room: int) -> None:
        config, xp, dtype = weights.config, cupy(), weights.dtype
        layers, heads = config.num_layers, config.num_heads
        size = config.d_model // heads
        self.weights, self._scratch = weights, Scratch(weights, slots, room)
        self.inputs: Any = self._scratch.inputs
        keys = xp.empty((layers, slots, heads, size, room), dtype)
        values = xp.empty((layers, slots, heads, room, size), dtype)
        self.cache: list[decode.Cache] = [
            decode.Cache(keys[i], values[i], weights.rotation) for i in range(layers)
        ]
        self.logits: Any = xp.empty((slots, weights.head.outputs), dtype)
        self.settings: Any = xp.zeros((ROUNDS + 1, slots), np.float64)
        self.chosen: Any = xp.zeros((ROUNDS, slots), np.int32)
        # Allocated once, like all else, so that one graph serves all rules and no rules.
        vocabulary = weights.head.outputs
        self.rules: draw.Rules = draw.Rules(
            xp.ones((LEVELS, STATES, vocabulary), np.int32),
            xp.zeros((STATES, vocabulary), np.int32),
            xp.zeros((2, slots), np.int32),
        )

    def forward(self) -> None:
        """Cache keys and values of the inputs, and compute logits."""
        x = run_layers(self.weights, self.cache, self._scratch, one_each=True)
        head, eps = self.weights.head, self.weights.eps
        decode.linear(x, head.weight, head.bias, self.logits, eps=eps)

    def draw(self) -> None:
        """The same, then draw a token for each slot, which becomes its id at the next position."""
        self.forward()
        ids, places, _, taken = (self.inputs[i] for i in range(4))
        where = {"ids": ids, "places": places, "taken": taken}
        draw.draw(self.logits, self.settings, **where, chosen=self.chosen, rules=self.rules)


class TokenStep:
    """One more token for each of B sequences, which have a slot in the cache each.

    Args:
        weights: the model's weights on the device.
        slots: B.
        room: S, the number of positions in a slot.
        graph: replay a CUDA graph after some tokens; False always launches kernels one by one.

    Attributes:
        token: the computation.
        forward, drawing: `Token.forward` and `Token.draw`, each as a `Captured`.
    """

    weights: DeviceWeights
    slots: int
    room: int
    token: Token
    forward: Captured
    drawing: Captured

    def __init__(self, weights: DeviceWeights, slots: int, room: int, graph: bool = True) -> None:
        self.weights, self.slots, self.room = weights, slots, room
        self.device: Device = weights.device
        with self.device.in_use():
            self.token = token = Token(weights, slots, room)
        # A run and its replay write the same numbers to the cache. So only the results that depend
        # on everything are compared: logits and draws.
        changed = [token.logits, token.inputs, token.chosen, token.rules.guide]
        self.forward, self.drawing = (
            Captured(function, changed, label="token step", enabled=graph, warm_up=WARM_UP)
            for function in (token.forward, token.draw)
        )
        self._owner: Any = None
        self._readable: Readable | None = None  # the rules that the device has

    def place(self, inputs: np.ndarray) -> None:
        """Set the slots' inputs: (4, B) int32, see `Token.inputs`."""
        self.token.inputs.set(inputs)

    def logits_of_next(self) -> np.ndarray:
        """Compute a token; returns logits (B, V) in main memory."""
        self.forward()
        return self.logits()

    def logits(self) -> np.ndarray:
        """The logits that were computed last, (B, V) in main memory."""
        return self.token.logits.get()

    def supply(self, settings: np.ndarray) -> None:
        """Set the random numbers of the next `ROUNDS` draws and 1/temperature; see `draw.draw`."""
        self.token.settings.set(settings)

    def rule(self, readable: Readable | None, guide: np.ndarray) -> None:
        """Set which tokens may be drawn (None: all) and the texts' states; see `draw.Rules`."""
        rules = self.token.rules
        if readable is not self._readable:
            if readable is None:
                rules.allowed.fill(1)
                rules.following.fill(0)
            else:
                rules.allowed.set(readable.allowed.astype(np.int32))
                rules.following.set(readable.following.astype(np.int32))
            self._readable = readable
        if readable is not None:
            rules.guide.set(guide)

    def draw(self, rounds: int) -> None:
        """Draw `rounds` tokens for each slot, one after another."""
        for _ in range(rounds):
            self.drawing()

    def tokens(self) -> np.ndarray:
        """The tokens of the last `ROUNDS` draws, (ROUNDS, B), by number of the draw mod ROUNDS."""
        return self.token.chosen.get()

    def prefill(self, inputs: np.ndarray) -> None:
        """Cache keys and values of rows; inputs (4, N), with each sequence's positions in order."""
        most = PREFILL_SCORES // (self.weights.config.num_heads * self.room)
        most = min(max(1, most), PREFILL_ROWS)
        for first in range(0, inputs.shape[1], most):
            part = np.ascontiguousarray(inputs[:, first : first + most])
            scratch = Scratch(self.weights, part.shape[1], self.room)
            scratch.inputs.set(part)
            run_layers(self.weights, self.token.cache, scratch, one_each=False)

    def lend_to(self, owner: object) -> None:
        """Reserve the step for as long as `owner` lives."""
        self._owner = weakref.ref(owner)

    @property
    def idle(self) -> bool:
        """Whether the step is not reserved."""
        return self._owner is None or self._owner() is None


def run_layers(
    weights: DeviceWeights, cache: Sequence[decode.Cache], scratch: Scratch, one_each: bool
) -> Any:
    """The output of the last layer, (N, C), for the rows in `scratch`.

    Args:
        one_each: whether each slot is in one row only. Otherwise all rows are written to a layer's
            cache before attention reads it. As no logits are needed then, the last layer ends
            there.
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
    """y = x + W block + b. In a post-norm model, W contains the residual connection from x̂."""
    if pre_norm:
        decode.linear(None, product.weight, product.bias, y, more=block, residual=x)
    else:
        decode.linear(x, product.weight, product.bias, y, more=block, eps=eps)
