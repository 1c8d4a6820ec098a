"""GPT-2 as Hugging Face keeps it: a folder with config.json, model.safetensors and the tokenizer.

GPT-2 (Radford et al., 2019) is a `TinyAlpaca` with pre-norm, GELU by its tanh approximation and a
tied head. Its `Conv1D` weights are (in, out), ours (out, in). Its head has no bias; ours is 0.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.storage import FileFormatError
from tinyalpaca.config import ModelConfig, from_dict
from tinyalpaca.converting.original_weights import filled_model
from tinyalpaca.converting.shards import load_folder
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.tokenizer import BPETokenizer, Tokenizer, load_tokenizer

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
BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # causal masks, as older versions saved them
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
    path = Path(folder) / "config.json"
    try:
        return path.is_file() and _read_json(path).get("model_type") == "gpt2"
    except (OSError, FileFormatError):
        return False


def load_gpt2(
    folder: str | os.PathLike[str], warn: Callable[[str], None] = lambda line: None
) -> tuple[TinyAlpaca, Tokenizer]:
    """A model and a tokenizer from a folder of Hugging Face's `save_pretrained`.

    Args:
        warn: told what is left out.

    Raises:
        FileFormatError: a file is damaged, or the model computes something that ours does not.
        FileNotFoundError: a file is missing.
    """
    path = Path(folder)
    config = gpt2_config(path / "config.json")
    weights, tensors = load_folder(path)
    model = filled_model(weights, config, translated(weights, tensors, config))
    tokenizer = _fitting_tokenizer(path, config.vocab_size, warn)
    ends = [end for end in end_tokens(path) if end < tokenizer.vocab_size]
    model.end_tokens = tuple(end for end in ends if end != tokenizer.end_token)
    return model, tokenizer


def end_tokens(folder: Path) -> list[int]:
    """The tokens at which Hugging Face's library ends a text: one, or several, or none.

    A fine-tuned model often has one of its own, as <|im_end|>. Configurations of small models may
    name GPT-2's, 50256, which they do not have.

    Raises:
        FileFormatError: what is named is no token id.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        path = folder / "config.json"
    named = _read_json(path).get("eos_token_id")
    ends = named if isinstance(named, list) else [] if named is None else [named]
    if not all(type(end) is int and end >= 0 for end in ends):
        raise FileFormatError(path, f"eos_token_id must be a token id, or several, not {named!r}")
    return ends


def _fitting_tokenizer(path: Path, size: int, warn: Callable[[str], None]) -> Tokenizer:
    """The folder's tokenizer, without special tokens that the model has no embedding of.

    Such are often given to a tokenizer and never used, as a [PAD]. A model with more embeddings
    than tokens is ordinary: their number has been rounded up.

    Raises:
        FileFormatError: tokens of ordinary text would have no embedding.
    """
    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size <= size:
        return tokenizer
    beyond = range(size, tokenizer.vocab_size)
    special = {index: text for text, index in tokenizer.special_tokens.items()}
    if not isinstance(tokenizer, BPETokenizer) or any(token not in special for token in beyond):
        raise FileFormatError(
            path, f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {size}"
        )
    names = [special[token] for token in beyond]
    warn(
        f"Warning: the model has no embedding of {', '.join(names)}: left out of the tokenizer, "
        f"which keeps {size} tokens"
    )
    return tokenizer.without(names)


def gpt2_config(path: Path) -> ModelConfig:
    """Our configuration for theirs.

    Raises:
        FileFormatError: not a configuration of a GPT-2 that we can compute; names the setting.
    """
    theirs = _read_json(path)
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
            "activation": ACTIVATIONS[activation],
            "tie_weights": theirs.get("tie_word_embeddings", True),
        }
        config: ModelConfig = from_dict(ModelConfig, ours)
        return config
    except FileFormatError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(path, f"not a configuration of a GPT-2 ({error!r})") from error


def _read_json(path: Path) -> dict[str, Any]:
    """The content of one of a folder's configurations.

    Raises:
        FileFormatError: it is no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, f"not a configuration of a GPT-2 ({error!r})") from error
    if not isinstance(content, dict):
        raise FileFormatError(path, "not a configuration of a GPT-2: it holds no JSON object")
    return content


def translated(
    path: Path, tensors: Mapping[str, np.ndarray], config: ModelConfig
) -> dict[str, np.ndarray]:
    """Their tensors under our names.

    Raises:
        FileFormatError: one is missing, or there are others, which would change the results.
    """
    theirs = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    used = {"lm_head.weight"}

    def take(name: str) -> Any:
        if name not in theirs:
            raise FileFormatError(path, f"damaged, or not a GPT-2: there is no tensor {name!r}")
        used.add(name)
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
    other = [name for name in theirs if name not in used and not BUFFER.fullmatch(name)]
    if other:
        raise FileFormatError(
            path, f"{len(other)} tensors are none of a plain GPT-2's, such as {other[0]!r}"
        )
    head = theirs.get("lm_head.weight")
    if config.tie_weights and head is not None and not np.array_equal(head, embedding):
        raise FileFormatError(
            path,
            "lm_head.weight is not the token embedding, though the configuration ties them: if the "
            "head is its own, set tie_word_embeddings to false in config.json",
        )
    return ours
