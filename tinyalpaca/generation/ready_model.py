"""A model made ready to generate: its weights folded, and the decoder that its device calls for."""

from __future__ import annotations

from collections.abc import Sequence

from minigrad.announce import announce
from minigrad.device import CPU, Device
from minigrad.nn import Parameter
from minigrad.state import STATE
from tinyalpaca.generation.as_written import (
    largest_size,
    why_not_as_written,
    why_not_folded,
    why_not_these_weights,
)
from tinyalpaca.generation.batch_decoder import BatchDecoder, pays
from tinyalpaca.generation.device_inference import DeviceInference, unsupported
from tinyalpaca.generation.folded_weights import FoldedWeights, fold
from tinyalpaca.generation.inference import CachedDecoder
from tinyalpaca.generation.uncached import Tokens, UncachedDecoder, home_of
from tinyalpaca.generation.weights_seen import WeightsSeen
from tinyalpaca.generation.writing import Decoder
from tinyalpaca.model import TinyAlpaca


class ReadyModel:
    """What generation needs of a model, which is looked at again with every call.

    Its weights are folded, and the copies of the forward pass used, only if it is a `TinyAlpaca`
    as its configuration describes it. Any other model runs itself, which is announced.

    Args:
        model: on any device.
        vocab_size: V, the tokenizer's.
        graph: on a GPU, compute a token by one CUDA graph.
    """

    def __init__(self, model: TinyAlpaca, vocab_size: int, graph: bool) -> None:
        self.model, self.vocab_size, self.graph = model, vocab_size, graph
        self._folded: FoldedWeights | None = None
        self._why_not: str | None = None
        self._seen = WeightsSeen([], CPU)
        self._inference: DeviceInference | None = None

    @property
    def device(self) -> Device:
        """Where the model lives."""
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
        """Do now what the first call would do: fold, and on a GPU compile as well."""
        folded = self._fold()
        if folded is not None and self.on_gpu:
            self._on_gpu(folded).prepare()

    def decoder(self, sequences: Sequence[Tokens], capacity: int) -> Decoder:
        """A decoder for sequences that become `capacity` tokens long at most."""
        folded = None if STATE.textbook else self._fold()
        if folded is None:
            return UncachedDecoder(self.model, self.vocab_size, sequences)
        if self.on_gpu:
            return self._on_gpu(folded).decoder(sequences, capacity)
        kind = BatchDecoder if pays(folded.config, len(sequences)) else CachedDecoder
        return kind(folded, sequences, capacity)

    def _fold(self) -> FoldedWeights | None:
        """The weights in main memory, folded again if they have changed.

        None, and announced, if there are no copies of the forward pass for this model.
        """
        modules = dict(self.model.named_modules())
        reason = why_not_as_written(modules) or why_not_folded(self.model.config)
        if reason is None:
            attributes = [value for module in modules.values() for value in vars(module).values()]
            parameters = [value for value in attributes if isinstance(value, Parameter)]
            device = self.device
            if not self._seen.still_hold(parameters, device):
                self._seen = WeightsSeen(parameters, device)
                self._why_not = why_not_these_weights(self.model)
                if self._why_not is None and device.kind == "gpu":
                    self._why_not = unsupported(parameters[0].dtype)
                self._folded = None
                if self._why_not is None:
                    self._folded = fold(self.model, self.vocab_size)
            reason = self._why_not
        if reason is not None:
            announce(f"generation runs the whole model for every token: {reason}")
            return None
        return self._folded

    def _on_gpu(self, folded: FoldedWeights) -> DeviceInference:
        if self._inference is None or self._inference.folded is not folded:
            self._inference = DeviceInference(folded, self.device, self.graph)
        return self._inference
