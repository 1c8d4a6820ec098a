"""Writes our models in Llama's format, or in Qwen2's if queries, keys and values have biases.

Hugging Face's classes can compute models with pre-norm, RMSNorm, rotary positions, SwiGLU, and no
other biases.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyalpaca.config import ModelConfig
from tinyalpaca.converting.llama_weights import LAYER, SCALING, USED
from tinyalpaca.converting.original_weights import differences

NAME = "Llama"
WANTED: dict[str, Any] = {
    **{"pre_norm": True, "norm": "rms", "positions": "rotary", "activation": "swiglu"},
    "bias": False,
}


def problems(config: ModelConfig, state: dict[str, np.ndarray]) -> list[str]:
    """The settings of a model that Llama's classes cannot compute."""
    return differences(config, WANTED)


def config_of(config: ModelConfig) -> dict[str, Any]:
    """The content of Hugging Face's config.json, without the ids of tokens."""
    scaling = None
    if config.rope_scaling != "none":
        numbers = {name: getattr(config, SCALING[name]) for name in USED[config.rope_scaling]}
        scaling = {"rope_type": config.rope_scaling, **numbers}
    return {
        "architectures": ["Qwen2ForCausalLM" if config.qkv_bias else "LlamaForCausalLM"],
        "model_type": "qwen2" if config.qkv_bias else "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.size_of_head,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": "silu",
        "attention_dropout": config.dropout,
        "rope_theta": float(config.rope_base),
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tie_weights,
        "dtype": "float32",
    }


def tensors_of(state: dict[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """Our tensors under Llama's names; stacked matrices are split."""
    q, k = config.num_heads * config.size_of_head, config.kv_heads * config.size_of_head
    cuts = {3: [q, q + k], 2: [config.d_ff], 1: []}
    tensors = {
        "model.embed_tokens.weight": state["embedding.token_embed"],
        "model.norm.weight": state["final_norm.weight"],
    }
    for number in range(config.num_layers):
        for ours, theirs in LAYER.items():
            for kind in ("weight", "bias"):
                whole = state.get(f"decoder_layers.{number}.{ours}.{kind}")
                if whole is not None:
                    parts = np.split(whole, cuts[len(theirs)])
                    for name, part in zip(theirs, parts, strict=True):
                        tensors[f"model.layers.{number}.{name}.{kind}"] = part
    if not config.tie_weights:
        tensors["lm_head.weight"] = state["final_linear.weight"]
    return tensors
