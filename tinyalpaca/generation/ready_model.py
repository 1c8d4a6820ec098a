"""Prepares a model for generation, and chooses a decoder by its size, its device and the texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.announce import announce
from minigrad.device import CPU, Device
from minigrad.nn import Parameter
from minigrad.state import STATE
from tinyalpaca.generation.as_written import (
    Structure,
    largest_size,
    why_not_folded,
    why_not_these_weights,
)
from tinyalpaca.generation.batch_decoder import BatchDecoder
from tinyalpaca.generation.decoder import ModelDecoder
from tinyalpaca.generation.device_inference import DeviceInference, unsupported
from tinyalpaca.generation.folded_weights import Weights, fold
from tinyalpaca.generation.plain_weights import views
from tinyalpaca.generation.single_step import FewDecoder
from tinyalpaca.generation.uncached import UncachedDecoder, home_of
from tinyalpaca.generation.weights_seen import WeightsSeen
from tinyalpaca.generation.windows import Tokens
from tinyalpaca.generation.writing import Decoder
from tinyalpaca.lora import LoRALinear
from tinyalpaca.model import TinyAlpaca

FOLDED = 1 << 25  # weights; for larger models folding does not pay: reading memory takes most time
FEW = 4  # up to so many sequences, computing each alone is faster than `BatchDecoder`
LARGEST_HEAD = 32  # the largest head size for which `BatchDecoder` is faster than the model
# The dtypes that the copies of the forward pass compute in. For float16 the model itself runs: it
# widens each op's inputs and rounds its result, because squares and sums would exceed 65504.
COPIED = (np.float32, np.float64)
Looked = tuple[WeightsSeen, Weights | None, str | None]
NOTHING_YET: Looked = (WeightsSeen([], CPU), None, None)


class ReadyModel:
    """A model with everything that generation prepares for it. Every call checks for changes.

    A `TinyAlpaca` that is as its configuration describes it runs with a cache of keys and values,
    or by copies of the forward pass. These use folded weights if the model is small or on a GPU,
    and its own weights if it is large and there is one sequence. A model in float16 runs itself,
    with a cache. Any other model runs as a whole for every token, and a warning says so.

    Args:
        model: on any device.
        vocab_size: V, of the tokenizer.
        graph: on a GPU, compute a token by one CUDA graph.
    """

    model: TinyAlpaca
    vocab_size: int
    graph: bool

    def __init__(self, model: TinyAlpaca, vocab_size: int, graph: bool) -> None:
        self.model, self.vocab_size, self.graph = model, vocab_size, graph
        self._structure = Structure(model)
        self._small = True
        # Weights that were looked at, folded, or the reason why they are not. They are replaced
        # together: another thread may read them at any moment.
        self._last = NOTHING_YET
        self._inference: DeviceInference | None = None

    @property
    def _folded(self) -> Weights | None:
        return self._last[1]

    @property
    def device(self) -> Device:
        """The model's device."""
        return home_of(self.model)

    @property
    def on_gpu(self) -> bool:
        """Whether that is a GPU."""
        return self.device.kind == "gpu"

    @property
    def largest(self) -> int:
        """The number of elements of the largest parameter."""
        if type(self.model) is TinyAlpaca:
            return largest_size(self.model.config)
        return max(parameter.size for parameter in self.model.parameters())

    def prepare(self) -> None:
        """Make the preparations of the first call now: fold weights, and on a GPU compile too."""
        if self._look() and self._folded is not None and self.on_gpu:
            self._on_gpu(self._folded).prepare()

    def decoder(self, sequences: Sequence[Tokens], capacity: int) -> Decoder:
        """A decoder for sequences of at most `capacity` tokens."""
        if STATE.textbook or not self._look():
            return UncachedDecoder(self.model, self.vocab_size, sequences)
        folded, config = self._folded, self.model.config
        given: dict[str, Any] = {"capacity": capacity, "modules": self._structure.modules}
        if folded is not None and self.on_gpu:
            return self._on_gpu(folded).decoder(sequences, capacity)
        if not self.on_gpu and len(sequences) <= (FEW if self._small else 1):
            weights = folded or self._views(capacity)
            if weights is not None:
                return FewDecoder(self.model, weights, sequences, **given)
        if folded is not None and config.size_of_head <= LARGEST_HEAD:
            return BatchDecoder(self.model, folded, sequences, **given)
        return ModelDecoder(self.model, self.vocab_size, sequences, **given)

    def _look(self) -> bool:
        """Whether the model may run with a cache; warns if not.

        Also folds its weights if that pays off, and again if they have changed.
        """
        if not self._structure.still_holds():
            self._structure = Structure(self.model)
        reason = self._structure.why_not()
        if reason is None:
            parameters = self._structure.parameters
            unknown = why_not_folded(self.model.config)
            if unknown is not None and self.on_gpu:
                announce(f"generation launches the model's own kernels one by one: {unknown}")
            self._small = sum(parameter.size for parameter in parameters) <= FOLDED
            if unknown is None and (self.on_gpu or self._small):
                reason = self._fold(parameters)
            else:
                self._last = NOTHING_YET
        if reason is not None:
            announce(f"generation runs the whole model for every token: {reason}")
        return reason is None

    def _views(self, capacity: int) -> Weights | None:
        """Views of the weights; None if they have several dtypes or float16, or with adapters."""
        adapted = any(type(module) is LoRALinear for module in self._structure.modules)
        copied = self.model.final_linear.weight.dtype in COPIED
        if adapted or not copied or why_not_these_weights(self.model) is not None:
            return None
        return views(self.model, self.vocab_size, min(capacity, self.model.config.max_seq_len))

    def _fold(self, parameters: list[Parameter]) -> str | None:
        """Fold the weights if they have changed. Returns the reason if that is not possible."""
        device, (seen, folded, why_not) = self.device, self._last
        if not seen.still_hold(parameters, device):
            seen, folded = WeightsSeen(parameters, device), None
            why_not = why_not_these_weights(self.model)
            if why_not is None and device.kind == "gpu":
                why_not = unsupported(parameters[0].dtype)
            if why_not is None and parameters[0].dtype in COPIED:
                folded = fold(self.model, self.vocab_size)
            self._last = seen, folded, why_not
        return why_not

    def _on_gpu(self, folded: Weights) -> DeviceInference:
        if self._inference is None or self._inference.folded is not folded:
            self._inference = DeviceInference(folded, self.device, self.graph)
        return self._inference
