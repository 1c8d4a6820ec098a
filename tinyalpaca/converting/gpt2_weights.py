"""GPT-2 as Hugging Face keeps it: a folder with config.json, model.safetensors and the tokenizer.

GPT-2 (Radford et al., 2019) is a `TinyAlpaca` with pre-norm, GELU by its tanh approximation and a
tied head. Its `Conv1D` weights are (in, out), ours (out, in). Its head has no bias; ours is 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.files import FileFormatError
from minigrad.serialization import load_safetensors
from tinyalpaca.config import ModelConfig
from tinyalpaca.converting.original_weights import filled_model
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.tokenizer import load_tokenizer
from tinyalpaca.tokenizing.tokenizer_base import Tokenizer

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
ACTIVATIONS |= {"relu": "relu", "silu": "silu", "swish": "silu"}
# Their names in a layer, ours, and whether the weight is a Conv1D's.
LAYER = {
    "ln_1": ("layer_norm1", False),
    "attn.c_attn": ("multi_head_attention.qkv_proj", True),
    "attn.c_proj": ("multi_head_attention.out_proj", True),
    "ln_2": ("layer_norm2", False),
    "mlp.c_fc": ("ffn.fc1", True),
    "mlp.c_proj": ("ffn.fc2", True),
}
# Settings that change what is computed, with the values under which it is what we compute.
EXPECTED = {
    "model_type": "gpt2",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def is_gpt2(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder says that it holds a GPT-2."""
    try:
        return json.loads((Path(folder) / "config.json").read_bytes())["model_type"] == "gpt2"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_gpt2(folder: str | os.PathLike[str]) -> tuple[TinyAlpaca, Tokenizer]:
    """A model and a tokenizer from a folder of Hugging Face's `save_pretrained`.

    Raises:
        FileFormatError: a file is damaged, or the model computes something that ours does not.
        FileNotFoundError: a file is missing.
    """
    path = Path(folder)
    config = gpt2_config(path / "config.json")
    weights = path / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(
            f"{path} has no {weights.name}: save the model as a single safetensors file, with "
            "model.save_pretrained(folder, max_shard_size='100GB')"
        )
    tensors, _ = load_safetensors(weights)
    model = filled_model(weights, config, translated(weights, tensors, config))
    two_files = path / "vocab.json"
    tokenizer = load_tokenizer(two_files if two_files.is_file() else path)
    if tokenizer.vocab_size > config.vocab_size:
        raise FileFormatError(
            path,
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {config.vocab_size}",
        )
    return model, tokenizer


def gpt2_config(path: Path) -> ModelConfig:
    """Our configuration for theirs.

    Raises:
        FileFormatError: not a configuration of a GPT-2 that we can compute; names the setting.
    """
    try:
        theirs = json.loads(path.read_bytes())
        for name, value in EXPECTED.items():
            if theirs.get(name, value) != value:
                raise FileFormatError(
                    path, f"{name} is {theirs[name]!r}; only {value!r} can be converted"
                )
        activation = theirs.get("activation_function", "gelu_new")
        if activation not in ACTIVATIONS:
            raise FileFormatError(
                path, f"activation_function {activation!r} is not one of {', '.join(ACTIVATIONS)}"
            )
        return ModelConfig(
            vocab_size=theirs["vocab_size"],
            d_model=theirs["n_embd"],
            d_ff=theirs.get("n_inner") or 4 * theirs["n_embd"],
            num_heads=theirs["n_head"],
            num_layers=theirs["n_layer"],
            max_seq_len=theirs["n_positions"],
            pre_norm=True,
            activation=ACTIVATIONS[activation],  # type: ignore[arg-type]
            tie_weights=theirs.get("tie_word_embeddings", True),
        )
    except FileFormatError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(path, f"not a configuration of a GPT-2 ({error!r})") from error


def translated(
    path: Path, tensors: Mapping[str, np.ndarray], config: ModelConfig
) -> dict[str, np.ndarray]:
    """Their tensors under our names.

    Raises:
        FileFormatError: one is missing.
    """
    theirs = {name.removeprefix("transformer."): array for name, array in tensors.items()}

    def take(name: str) -> Any:
        if name not in theirs:
            raise FileFormatError(path, f"damaged, or not a GPT-2: there is no tensor {name!r}")
        return theirs[name]

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
    return ours
