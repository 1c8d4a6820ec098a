"""A model made ready to generate: its weights folded, and the decoder that its device calls for."""

from __future__ import annotations

from collections.abc import Sequence

from minigrad import nn
from minigrad.announce import announce
from minigrad.device import Device
from minigrad.state import STATE
from tinyalpaca.generating.batch_decoder import BatchDecoder, pays
from tinyalpaca.generating.device_inference import DeviceInference, unsupported
from tinyalpaca.generating.folded_weights import FoldedWeights, fold
from tinyalpaca.generating.inference import CachedDecoder
from tinyalpaca.generating.uncached import Tokens, UncachedDecoder
from tinyalpaca.generating.writing import Decoder
from tinyalpaca.model import (
    DecoderLayer,
    Embedding,
    FeedForwardNetwork,
    MaskedMultiHeadSelfAttention,
    TinyAlpaca,
)

# What the faster ways of generating are copies of. A layer of another class may do anything else.
COPIED = {
    *(TinyAlpaca, Embedding, DecoderLayer, MaskedMultiHeadSelfAttention, FeedForwardNetwork),
    *(nn.ModuleList, nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Dropout),
}


def why_not_copied(model: nn.Module) -> str | None:
    """Why only the model itself can compute what it computes; None for a `TinyAlpaca` as it is."""
    for module in model.modules():
        if type(module) not in COPIED:
            return f"the model has a {type(module).__name__}"
        if "forward" in vars(module):
            return f"a {type(module).__name__} of the model has been given another forward"
    return None


class ReadyModel:
    """What generation needs of a model. Its weights are looked at again with every call.

    Args:
        model: on any device.
        vocab_size: V, the tokenizer's.
        graph: on a GPU, compute a token by one CUDA graph.
    """

    def __init__(self, model: TinyAlpaca, vocab_size: int, graph: bool) -> None:
        self.model, self.vocab_size, self.graph = model, vocab_size, graph
        self._folded: FoldedWeights | None = None
        self._sums: list[float] = []
        self._inference: DeviceInference | None = None

    @property
    def device(self) -> Device:
        """Where the model lives."""
        return self.model.parameters()[0].device

    @property
    def on_gpu(self) -> bool:
        """Whether that is a GPU."""
        return self.device.kind == "gpu"

    def folded(self) -> FoldedWeights:
        """The weights in main memory, folded again if they have changed.

        Raises:
            ValueError: the model is not a `TinyAlpaca` as it is.
        """
        reason = why_not_copied(self.model)
        if reason is not None:
            raise ValueError(f"this looks into the layers of a TinyAlpaca, and {reason}")
        with self.device.in_use():
            sums = [p.array.sum() for p in self.model.parameters()]
            if self.on_gpu:
                sums = self.device.xp.stack(sums).tolist()  # one copy to the host, not one for each
        sums = list(map(float, sums))
        if self._folded is None or sums != self._sums:
            self._folded, self._sums = fold(self.model, self.vocab_size), sums
        return self._folded

    def prepare(self) -> None:
        """Do now what the first call would do: fold, and on a GPU compile as well."""
        if why_not_copied(self.model) is not None:
            return
        inference = self._on_gpu()
        if inference is None:
            self.folded()
        else:
            inference.prepare()

    def decoder(self, sequences: Sequence[Tokens], capacity: int) -> Decoder:
        """A decoder for sequences that become `capacity` tokens long at most."""
        if not STATE.textbook and why_not_copied(self.model) is None:
            inference = self._on_gpu()
            if inference is not None:
                return inference.decoder(sequences, capacity)
            if not self.on_gpu:
                folded = self.folded()
                kind = BatchDecoder if pays(folded.config, len(sequences)) else CachedDecoder
                return kind(folded, sequences, capacity)
        return UncachedDecoder(self.model, self.vocab_size, sequences)

    def _on_gpu(self) -> DeviceInference | None:
        """For the weights as they are now; None on a CPU, or (announced) if kernels do not fit."""
        if not self.on_gpu:
            return None
        reason = unsupported(self.model.final_linear.weight.dtype)
        if reason is not None:
            announce(f"generation runs the whole model for every token: {reason}")
            return None
        folded = self.folded()
        if self._inference is None or self._inference.folded is not folded:
            self._inference = DeviceInference(folded, self.device, self.graph)
        return self._inference
