"""Reads configuration and weights of GPT-2 models from Hugging Face.

GPT-2 (Radford et al., 2019) is a `TinyAlpaca` with pre-norm, GELU by its tanh approximation and a
tied head. Its `Conv1D` weights are (in, out), ours (out, in). Its head has no bias, so ours is 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.storage import FileFormatError
from tinyalpaca.config import ModelConfig, from_dict
from tinyalpaca.converting.their_tensors import TheirTensors

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
ACTIVATIONS |= {"relu": "relu", "silu": "silu", "swish": "silu"}
# GPT-2's names in a layer -> our names, and whether the weight is that of a Conv1D.
LAYER = {
    "ln_1": ("layer_norm1", False),
    "attn.c_attn": ("multi_head_attention.qkv_proj", True),
    "attn.c_proj": ("multi_head_attention.out_proj", True),
    "ln_2": ("layer_norm2", False),
    "mlp.c_fc": ("ffn.fc1", True),
    "mlp.c_proj": ("ffn.fc2", True),
}
BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # causal masks, saved by older versions
# Settings that change what is computed, with the values that our model supports.
EXPECTED: dict[str, Any] = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def gpt2_config(path: Path, theirs: Mapping[str, Any]) -> ModelConfig:
    """Our configuration of a GPT-2 model.

    Args:
        path: the path of its config.json, for messages.
        theirs: the content of that file.

    Raises:
        FileFormatError: our model cannot compute such a GPT-2; names the setting.
    """
    for name, value in EXPECTED.items():
        if theirs.get(name, value) != value:
            raise FileFormatError(
                path, f"{name} is {theirs[name]!r}; only {value!r} can be converted"
            )
    try:
        activation = theirs.get("activation_function", "gelu_new")
        if activation not in ACTIVATIONS:
            raise FileFormatError(
                path, f"activation_function {activation!r} is not one of {', '.join(ACTIVATIONS)}"
            )
        ours = {
            "vocab_size": theirs["vocab_size"],
            "d_model": theirs["n_embd"],
            "d_ff": theirs.get("n_inner") or 4 * theirs["n_embd"],
            "num_heads": theirs["n_head"],
            "num_layers": theirs["n_layer"],
            "max_seq_len": theirs["n_positions"],
            "pre_norm": True,
            "norm_eps": theirs.get("layer_norm_epsilon", 1e-5),
            "activation": ACTIVATIONS[activation],
            "tie_weights": theirs.get("tie_word_embeddings", True),
        }
        config: ModelConfig = from_dict(ModelConfig, ours)
        return config
    except FileFormatError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(path, f"not a configuration of a GPT-2 ({error!r})") from error


def translated(
    path: Path, tensors: Mapping[str, np.ndarray], config: ModelConfig
) -> dict[str, np.ndarray]:
    """GPT-2's tensors under our names.

    Raises:
        FileFormatError: one is missing, or there are others, which would change the results.
    """
    theirs = TheirTensors(path, tensors, "transformer.", "a GPT-2", "GPT-2's")
    take = theirs.take
    embedding = take("wte.weight")
    ours = {
        "embedding.token_embed": embedding,
        "embedding.pos_embed": take("wpe.weight"),
        "final_norm.weight": take("ln_f.weight"),
        "final_norm.bias": take("ln_f.bias"),
        "final_linear.weight": embedding if config.tie_weights else take("lm_head.weight"),
        "final_linear.bias": np.zeros(len(embedding), np.float32),
    }
    for number in range(config.num_layers):
        for name, (our_name, transposed) in LAYER.items():
            weight = take(f"h.{number}.{name}.weight")
            prefix = f"decoder_layers.{number}.{our_name}"
            ours[f"{prefix}.weight"] = weight.T if transposed else weight
            ours[f"{prefix}.bias"] = take(f"h.{number}.{name}.bias")
    theirs.check_rest(BUFFER, embedding if config.tie_weights else None)
    return ours
