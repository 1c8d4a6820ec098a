"""A large model's weights for generation: views of its parameters.

A folded copy (`folded_weights`) would take as much memory as the model, and making it would take
the time of many tokens. So matrices are used as they are, even inside a memory-mapped file. Scales
and norms that would be folded into them are applied to the vectors instead. As nothing is copied,
changes of the parameters take effect at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyalpaca.generation.folded_weights import Layer, Norm, Weights, rotation_of
from tinyalpaca.model import TinyAlpaca


def views(model: TinyAlpaca, vocab_size: int, room: int) -> Weights:
    """The weights of a model on the CPU, for `SingleStep`.

    Args:
        vocab_size: V, of the tokenizer; a model may have more rows, as padding.
        room: S, the number of positions that will be computed.
    """
    config, embedding, head = model.config, model.embedding, model.final_linear
    centred = config.norm == "layer"

    def norm(module: Any) -> Norm:
        return Norm(_array(module.weight), _array(getattr(module, "bias", None)), centred)

    layers = []
    for layer in model.decoder_layers:
        attention, ffn = layer.multi_head_attention, layer.ffn
        linears = (attention.qkv_proj, attention.out_proj, ffn.fc1, ffn.fc2)
        first, second = norm(layer.layer_norm1), norm(layer.layer_norm2)
        norms = (first, second) if config.pre_norm else (second, first)
        qkv, out, fc1, fc2 = (linear.weight.array.T for linear in linears)
        biases: Any = tuple(_array(linear.bias) for linear in linears)
        layers.append(Layer(qkv, out, fc1, fc2, biases, norms))
    bias = _array(head.bias)
    return Weights(
        config,
        config.norm_eps,
        embedding.token_embed.array,
        _array(embedding.pos_embed),
        rotation_of(config, room, head.weight.dtype),
        layers,
        head.weight.array[:vocab_size].T,
        head_bias=None if bias is None else bias[:vocab_size],
        last_norm=None if model.final_norm is None else norm(model.final_norm),
        folded=False,
    )


def _array(parameter: Any) -> np.ndarray | None:
    return None if parameter is None else parameter.array
