"""Running the model for generation on a GPU: keys and values kept there, one graph a token.

    inference = DeviceInference(folded, Device("gpu"))
    decoder = inference.decoder(sequences, capacity)
    logits = decoder.next_logits()                     # as any decoder's, or:
    tokens, _ = decoder.next_tokens(sampler, 100)      # drawn there, maybe several in a row

What the model sees is what `tinyalpaca.generation.windows` says, and the logits are the model's, up
to rounding. The kernels are in `tinyalpaca.generation.cuda`.

A token of all sequences is **one graph launch**: 5 kernels a layer, 2 more, and one that draws.
Where temperature is all there is to sampling, tokens are drawn on the device, from the random
numbers that the host's sampler would have used and among the tokens that may come there: one copy
of tokens to the host for up to 32 of them in a row, and one of random numbers and one of where the
texts stand to the device for every 32. With filters or a penalty the host needs the logits: one
copy each way for each token. Prompts, and windows that have slid, are computed for all their
positions at once.

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

ROOM = 64  # the cache's capacity is a multiple of it, so that calls of many lengths can share it
NOBODY = -1  # the place of a slot that no sequence has


class DeviceDecoder:
    """Logits from keys and values that are kept on the device, or tokens drawn from them there.

    Args:
        step: it has a slot for each sequence, and is not used by others meanwhile.
        sequences: token ids, at least one each; between calls the caller appends to each the token
            chosen from the logits, or all that `next_tokens` returned.
    """

    def __init__(self, step: TokenStep, sequences: Sequence[Tokens]) -> None:
        self.step = step
        self.windows: Windows = Windows(sequences, step.weights.config.max_seq_len)
        self._slots = list(range(len(sequences)))
        self._placed = False  # whether the device knows what each slot is at
        self._drawn = 0  # rounds of draws so far
        step.lend_to(self)

    def next_logits(self) -> np.ndarray:
        """Logits of the token after each sequence, (B, V), in main memory."""
        with self.step.device.in_use():
            self._prepare()
            self._placed = False  # whatever is chosen, the device does not know
            return self.step.logits_of_next()[self._slots]

    def next_tokens(
        self, sampler: Sampler, most: int, with_logits: bool = False
    ) -> tuple[list[list[int]], np.ndarray | None]:
        """The next tokens of all sequences, drawn on the device.

        Args:
            sampler: of plain sampling, for these sequences. Its random numbers are drawn ahead.
            most: how many tokens in a row are wanted at most.
            with_logits: give the logits too, of one token alone.

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
        """Slide windows that are full, and tell the device where everything is if that changed."""
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
        """What `TokenStep.supply` wants for the next rounds."""
        settings = np.zeros((ROUNDS + 1, self.step.slots))
        if not sampler.sampling.greedy:
            settings[:-1, self._slots] = sampler.uniforms(ROUNDS)
            settings[-1] = 1 / max(sampler.sampling.temperature, COLDEST)
        return settings

    def _guide(self, sampler: Sampler) -> np.ndarray:
        """Where the texts stand, and after how many draws they end: `draw.Rules.guide`."""
        guide = np.full((2, self.step.slots), self._drawn + sampler.left, np.int32)
        guide[0, self._slots] = sampler.states
        return guide


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

    folded: Weights
    graph: bool

    def __init__(self, folded: Weights, device: Device, graph: bool = True) -> None:
        self.folded, self.graph = folded, graph
        self.weights: DeviceWeights = DeviceWeights(folded, device)
        self._step: TokenStep | None = None  # the last one: cache, scratch and graph are kept

    def decoder(self, sequences: Sequence[Tokens], capacity: int) -> DeviceDecoder:
        """A decoder with `capacity` positions for each sequence (at most the context)."""
        return DeviceDecoder(self._step_for(len(sequences), capacity), sequences)

    def prepare(self) -> None:
        """Compile the kernels, and make what one sequence needs."""
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
