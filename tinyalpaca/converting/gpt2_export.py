"""A checkpoint as a folder of GPT-2 that Hugging Face's `transformers` loads.

Only models that GPT-2's classes compute can be written: pre-norm, LayerNorm, learned positions,
one of its activations, and a final layer without a bias. A model that was trained without biases is
one: GPT-2's biases are 0 then.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.storage import save_safetensors, write_text_atomically
from tinyalpaca.config import ConfigError, ModelConfig
from tinyalpaca.converting.gpt2_weights import LAYER
from tinyalpaca.converting.original_weights import differences
from tinyalpaca.runs import load_model
from tinyalpaca.tokenizer import BPETokenizer, CharTokenizer, Tokenizer
from tinyalpaca.tokenizer.added_tokens import AddedToken
from tinyalpaca.tokenizer.tokenizer_files import added_token_to_json, to_json

ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
WANTED = {"pre_norm": True, "norm": "layer", "positions": "learned"}


def save_for_gpt2(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[Path]:
    """Write the model and the tokenizer of a checkpoint; returns the files.

    Raises:
        ConfigError: GPT-2 cannot compute the model, or the library cannot have the tokenizer; says
            why.
        FileExistsError: `out` holds a model.
    """
    model, tokenizer, _ = load_model(folder)
    state = {name: np.asarray(array) for name, array in model.state_dict().items()}
    problems = differences(model.config, WANTED)
    if model.config.activation not in ACTIVATIONS:
        problems.append(f"activation = {model.config.activation!r}")
    if np.any(state.get("final_linear.bias", 0)):
        problems.append("a bias in its final layer (train with --no-bias)")
    if problems:
        raise ConfigError(f"GPT-2 cannot compute this model: it has {', '.join(problems)}")
    tokenizer_file = _tokenizer_file(tokenizer)
    path = Path(out)
    if (path / "config.json").exists():
        raise FileExistsError(f"{path} already holds a model; name another folder")
    path.mkdir(parents=True, exist_ok=True)
    begin = tokenizer.end_token
    ends = [*([] if begin is None else [begin]), *model.end_tokens]
    end = ends if len(ends) > 1 else next(iter(ends), None)
    ids = {"bos_token_id": begin, "eos_token_id": end}
    # An ordinary token would become a special one by being named here.
    special = set(tokenizer.special_tokens.values())
    names = {"bos_token": begin, "eos_token": ends[-1] if ends else None}
    files = {
        "config.json": {**_config(model.config), **ids},
        "generation_config.json": ids,
        "tokenizer.json": tokenizer_file,
        "tokenizer_config.json": {
            **_tokenizer_config(model.config),
            **{k: tokenizer.decode([token]) for k, token in names.items() if token in special},
        },
    }
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=1)
        write_text_atomically(path / name, text + "\n")
    weights = path / "model.safetensors"
    save_safetensors(_tensors(state, model.config), weights, {"format": "pt"})
    return [weights, *(path / name for name in files)]


def _config(config: ModelConfig) -> dict[str, Any]:
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


def _tensors(state: dict[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """Ours under their names, with biases of 0 where ours has none."""

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


def _tokenizer_file(tokenizer: Tokenizer) -> dict[str, Any]:
    if isinstance(tokenizer, BPETokenizer):
        return to_json(tokenizer.parts)
    if not isinstance(tokenizer, CharTokenizer):
        raise ConfigError(
            f"Hugging Face's library cannot have this tokenizer, a {type(tokenizer).__name__}"
        )
    return {
        "version": "1.0",
        "added_tokens": [
            added_token_to_json(AddedToken(text, index))
            for text, index in tokenizer.special_tokens.items()
        ],
        "decoder": {"type": "Fuse"},
        "model": {  # without merges every character is a token
            "type": "BPE",
            "vocab": {character: i for i, character in enumerate(tokenizer.characters)},
            "merges": [],
        },
    }


def _tokenizer_config(config: ModelConfig) -> dict[str, Any]:
    """The class that takes tokenizer.json as it is; others put a splitter of their own into it."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.max_seq_len,
    }
