"""Writes our models in GPT-2's format, if Hugging Face's GPT-2 classes can compute them.

They can if the model has pre-norm, LayerNorm, learned positions, one of GPT-2's activations, and a
final layer without a bias. A model without other biases is written with biases of 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyalpaca.config import ModelConfig
from tinyalpaca.converting.gpt2_weights import LAYER
from tinyalpaca.converting.original_weights import differences, other_heads

NAME = "GPT-2"
ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
WANTED: dict[str, Any] = {"pre_norm": True, "norm": "layer", "positions": "learned"}


def problems(config: ModelConfig, state: dict[str, np.ndarray]) -> list[str]:
    """The settings of a model that GPT-2's classes cannot compute."""
    found = [*differences(config, WANTED), *other_heads(config)]
    if config.activation not in ACTIVATIONS:
        found.append(f"activation = {config.activation!r}")
    if np.any(state.get("final_linear.bias", 0)):
        found.append("a bias in its final layer (train with --no-bias)")
    return found


def config_of(config: ModelConfig) -> dict[str, Any]:
    """The content of Hugging Face's config.json, without the ids of tokens."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": ACTIVATIONS[config.activation],
        "vocab_size": config.vocab_size,
        "n_positions": config.max_seq_len,
        "n_embd": config.d_model,
        "n_inner": config.d_ff,
        "n_head": config.num_heads,
        "n_layer": config.num_layers,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_weights,
        "dtype": "float32",
    }


def tensors_of(state: dict[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """Our tensors under GPT-2's names, with biases of 0 where our model has none."""

    def bias(name: str) -> np.ndarray:
        weight = state[f"{name}.weight"]
        return state.get(f"{name}.bias", np.zeros(weight.shape[0], weight.dtype))

    theirs = {
        "wte.weight": state["embedding.token_embed"],
        "wpe.weight": state["embedding.pos_embed"],
        "ln_f.weight": state["final_norm.weight"],
        "ln_f.bias": bias("final_norm"),
    }
    for number in range(config.num_layers):
        for name, (ours, transposed) in LAYER.items():
            prefix = f"decoder_layers.{number}.{ours}"
            weight = state[f"{prefix}.weight"]
            theirs[f"h.{number}.{name}.weight"] = (
                np.ascontiguousarray(weight.T) if transposed else weight
            )
            theirs[f"h.{number}.{name}.bias"] = bias(prefix)
    tensors = {f"transformer.{name}": array for name, array in theirs.items()}
    if not config.tie_weights:
        tensors["lm_head.weight"] = state["final_linear.weight"]
    return tensors
