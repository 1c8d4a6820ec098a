"""Generation on a GPU: keys and values are cached there, and a token is one graph launch.

    inference = DeviceInference(folded, Device("gpu"))
    decoder = inference.decoder(sequences, capacity)
    logits = decoder.next_logits()                     # as with any decoder, or:
    tokens, _ = decoder.next_tokens(sampler, 100)      # drawn on the GPU, maybe several in a row

`tinyalpaca.generation.windows` says which tokens the model sees. Logits equal the model's, up to
rounding. The kernels are in `tinyalpaca.generation.cuda`.

A token for all sequences is **one graph launch**: 5 kernels per layer, 2 more, and one that draws.

- With temperature alone, tokens are drawn on the device, by the same random numbers and rules as on
  the host. Up to 32 tokens in a row then need one copy of tokens to the host, and two copies to the
  device: random numbers, and the states of the texts.
- With filters or a penalty the host needs the logits: one copy in each direction for every token.

All positions of a prompt, or of a window that has slid, are computed at once.

B sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.device import Device
from minigrad.kernels.cuda.compile import REAL
from tinyalpaca.generation.device_weights import DeviceWeights
from tinyalpaca.generation.folded_weights import Weights
from tinyalpaca.generation.sampling import COLDEST, Sampler, damaged_logits
from tinyalpaca.generation.token_step import ROUNDS, TokenStep
from tinyalpaca.generation.windows import Tokens, Windows

ROOM = 64  # the cache's capacity is a multiple of this, so that calls of many lengths can share it
NOBODY = -1  # the position of a slot that no sequence uses


class DeviceDecoder:
    """Logits from keys and values that are cached on the device, or tokens drawn there.

    Args:
        step: has a slot for each sequence; nothing else may use it meanwhile.
        sequences: token ids, at least one each. Between calls the caller appends the token chosen
            from the logits, or all tokens that `next_tokens` has returned.
    """

    def __init__(self, step: TokenStep, sequences: Sequence[Tokens]) -> None:
        self.step = step
        self.windows: Windows = Windows(sequences, step.weights.config.max_seq_len)
        self._slots = list(range(len(sequences)))
        self._placed = False  # whether the device has each slot's token and position
        self._drawn = 0  # rounds of draws so far
        step.lend_to(self)

    def next_logits(self) -> np.ndarray:
        """Logits of the token after each sequence, (B, V), in main memory."""
        with self.step.device.in_use():
            self._prepare()
            self._placed = False  # the device will not know which tokens are chosen
            return self.step.logits_of_next()[self._slots]

    def next_tokens(
        self, sampler: Sampler, most: int, with_logits: bool = False
    ) -> tuple[list[list[int]], np.ndarray | None]:
        """The next tokens of all sequences, drawn on the device.

        Args:
            sampler: a sampler without filters or penalty for these sequences. Its random numbers
                are drawn in advance.
            most: the largest number of tokens in a row.
            with_logits: return the logits too; then there is only one round.

        Returns:
            One or more rounds of B tokens, and logits (B, V) in main memory or None.

        Raises:
            ValueError: the logits are not numbers.
        """
        with self.step.device.in_use():
            return self._next_tokens(sampler, most, with_logits)

    def _next_tokens(
        self, sampler: Sampler, most: int, with_logits: bool
    ) -> tuple[list[list[int]], np.ndarray | None]:
        self._prepare()
        first = self._drawn % ROUNDS
        if first == 0:
            self.step.supply(self._numbers(sampler))
            self.step.rule(sampler.readable, self._guide(sampler))
        # The longest window may be as long as the context when its last token is computed.
        longest = max(self.windows.last()[1]) + 1
        rounds = min(most, ROUNDS - first, self.windows.context - longest + 1)
        if with_logits:
            rounds = 1
        self.step.draw(rounds)
        self._drawn += rounds
        tokens = self.step.tokens()[first : first + rounds, self._slots]
        if tokens.min() < 0:
            raise damaged_logits()
        logits = self.step.logits()[self._slots] if with_logits else None
        found = tokens.tolist()
        for row in found:
            sampler.follow(row)
        return found, logits

    def remove(self, row: int) -> None:
        """Remove a sequence; the last one takes its place."""
        self.windows.remove(row)
        self._slots[row] = self._slots[-1]
        del self._slots[-1]
        self._placed = False

    def _prepare(self) -> None:
        """Slide windows that are full. If positions have changed, copy them to the device."""
        late = self.windows.slide()
        if late:
            self._prefill(late)
        if late or not self._placed:
            inputs = np.empty((4, self.step.slots), np.int32)
            inputs[1], inputs[2], inputs[3] = NOBODY, np.arange(self.step.slots), self._drawn
            inputs[:2, self._slots] = self.windows.last()
            self.step.place(inputs)
            self._placed = True

    def _prefill(self, rows: list[int]) -> None:
        """Cache keys and values of all tokens in the windows of these rows except the last ones."""
        parts = []
        for row in rows:
            window = self.windows.before_last(row)
            slots, draws = [self._slots[row]] * len(window), [0] * len(window)
            parts.append(np.array([window, range(len(window)), slots, draws], np.int32))
        inputs = np.concatenate(parts, axis=1)
        if inputs.shape[1]:
            self.step.prefill(inputs)

    def _numbers(self, sampler: Sampler) -> np.ndarray:
        """The random numbers and temperatures of the next rounds, for `TokenStep.supply`."""
        settings = np.zeros((ROUNDS + 1, self.step.slots))
        if not sampler.sampling.greedy:
            settings[:-1, self._slots] = sampler.uniforms(ROUNDS)
            settings[-1] = 1 / max(sampler.sampling.temperature, COLDEST)
        return settings

    def _guide(self, sampler: Sampler) -> np.ndarray:
        """The states of the texts, and after how many draws they end: `draw.Rules.guide`."""
        guide = np.full((2, self.step.slots), self._drawn + sampler.left, np.int32)
        guide[0, self._slots] = sampler.states
        return guide


def unsupported(dtype: Any) -> str | None:
    """Why the kernels cannot run a model of this dtype, or None if they can."""
    if np.dtype(dtype).char in REAL:
        return None
    return f"the CUDA kernels of generation compute in float32 and float64, not in {dtype}"


class DeviceInference:
    """A model on a GPU, ready to generate.

    Args:
        folded: the model's folded weights, in main memory.
        device: where to compute.
        graph: see `TokenStep`.
    """

    folded: Weights
    graph: bool

    def __init__(self, folded: Weights, device: Device, graph: bool = True) -> None:
        self.folded, self.graph = folded, graph
        self.weights: DeviceWeights = DeviceWeights(folded, device)
        self._step: TokenStep | None = None  # the last one, to reuse its cache, buffers and graph

    def decoder(self, sequences: Sequence[Tokens], capacity: int) -> DeviceDecoder:
        """A decoder with `capacity` positions for each sequence (at most the context)."""
        return DeviceDecoder(self._step_for(len(sequences), capacity), sequences)

    def prepare(self) -> None:
        """Compile the kernels, and allocate memory for one sequence."""
        step = self._step_for(1, self.weights.config.max_seq_len)
        with step.device.in_use():
            step.place(np.array([[0], [NOBODY], [0], [0]], np.int32))
            step.draw(1)

    def _step_for(self, slots: int, capacity: int) -> TokenStep:
        context = self.weights.config.max_seq_len
        needed = min(capacity, context)
        step = self._step
        if step is None or not step.idle or step.slots != slots or step.room < needed:
            room = min(context, -(-needed // ROOM) * ROOM)
            step = self._step = TokenStep(self.weights, slots, room, self.graph)
        return step
