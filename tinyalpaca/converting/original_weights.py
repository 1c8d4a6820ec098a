"""Reads and writes models of the original: its `.pth` of weights and its `training_vocab.json`.

Parameter names and layouts are the same in both, so only the file format changes. Sizes are read
from the tensors' shapes. The number of heads does not show in them, so it must be given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import Generator
from minigrad.storage import FileFormatError, save_safetensors
from tinyalpaca.config import ConfigError, ModelConfig, from_dict
from tinyalpaca.converting.shards import load_file
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.parameter_names import parameter_shapes, with_present_names
from tinyalpaca.runs import find_model, load_model
from tinyalpaca.runs.layout import WEIGHTS
from tinyalpaca.tokenizer import Tokenizer, load_tokenizer
from tinyalpaca.tokenizer.original_vocab import OriginalTokenizer

WRAPPERS = ("module.", "_orig_mod.")  # prefixes that DataParallel and torch.compile add to names
VOCABULARY = "training_vocab.json"
MOST_PARAMETERS = 10  # for each tensor in the file; a file whose names imply more is damaged
# The settings of our models that the original's classes can compute.
ORIGINAL_OPTIONS: dict[str, Any] = {
    "pre_norm": False,
    "norm": "layer",
    "norm_eps": 1e-5,
    "activation": "relu",
    "positions": "learned",
    "bias": True,
}


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a `.pth`, `.pt` or `.safetensors` file, by their current names."""
    tensors = load_file(Path(path))
    for prefix in WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    return with_present_names(tensors)


def possible_heads(tensors: Mapping[str, np.ndarray]) -> list[int]:
    """The numbers of heads that are possible with the model's width."""
    width = tensors["final_linear.weight"].shape[1]
    return [heads for heads in range(1, width + 1) if width % heads == 0]


def sizes(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The sizes of the model, except for the number of heads.

    Raises:
        FileFormatError: these are not weights of the original; names what is missing.
    """
    wanted = {
        "embedding.token_embed": ("vocab_size", "d_model"),
        "embedding.pos_embed": ("max_seq_len", "d_model"),
        "decoder_layers.0.ffn.fc1.weight": ("d_ff", "d_model"),
        "final_linear.weight": ("vocab_size", "d_model"),
    }
    found: dict[str, int] = {}
    for name, axes in wanted.items():
        if name not in tensors or tensors[name].ndim != 2:
            have = ", ".join(list(tensors)[:4]) or "nothing"
            raise FileFormatError(
                path, f"these are not weights of TinyAlpaca: no matrix {name!r}; it has {have} ..."
            )
        for axis, length in zip(axes, tensors[name].shape, strict=True):
            if found.setdefault(axis, length) != length:
                raise FileFormatError(
                    path, f"{name} has {axis} {length}, where it is {found[axis]} elsewhere"
                )
    numbers = [re.match(r"decoder_layers\.(\d+)\.", name) for name in tensors]
    found["num_layers"] = 1 + max(int(match[1]) for match in numbers if match)
    return found


def load_original(
    weights: str | os.PathLike[str], vocabulary: str | os.PathLike[str], num_heads: int
) -> tuple[TinyAlpaca, Tokenizer]:
    """Load a model and a tokenizer from the original's two files.

    Raises:
        FileFormatError: the weights are damaged, incomplete or of another model, or the vocabulary
            does not belong to them.
        ConfigError: the width cannot be divided by the number of heads.
    """
    tensors = read_weights(weights)
    config: ModelConfig = from_dict(
        ModelConfig, {**sizes(weights, tensors), "num_heads": num_heads}
    )
    tokenizer = load_tokenizer(vocabulary)
    if tokenizer.vocab_size > config.vocab_size:
        raise FileFormatError(
            vocabulary,
            f"the vocabulary has {tokenizer.vocab_size} tokens, the model only "
            f"{config.vocab_size}: they do not belong together",
        )
    return filled_model(weights, config, tensors), tokenizer


def filled_model(
    path: str | os.PathLike[str], config: ModelConfig, tensors: Mapping[str, Any]
) -> TinyAlpaca:
    """A model with these weights, in evaluation mode.

    Raises:
        FileFormatError: they do not fit; names all tensors that are missing, unexpected or of a
            wrong shape.
    """
    size = sum(tensor.size for tensor in tensors.values())
    for number, (name, shape) in enumerate(parameter_shapes(config)):
        if prod(shape) > size or number > MOST_PARAMETERS * len(tensors):
            raise FileFormatError(
                path, f"the model would have {name} {shape}, which these weights cannot fill"
            )
    rng = Generator(0)
    with rng.without_drawing():
        model = TinyAlpaca(config, rng)
    try:
        model.load_state_dict(tensors, assign=True)
    except ValueError as error:
        raise FileFormatError(path, str(error)) from error
    model.eval()
    return model


def differences(config: ModelConfig, wanted: Mapping[str, Any]) -> list[str]:
    """The settings that differ from `wanted`, as "name = value"."""
    return [
        f"{name} = {getattr(config, name)!r}"
        for name, value in wanted.items()
        if getattr(config, name) != value
    ]


def other_heads(config: ModelConfig) -> list[str]:
    """The settings that let heads share keys and values, or set the head size."""
    found = []
    if config.kv_heads != config.num_heads:
        found.append(f"num_kv_heads = {config.num_kv_heads}")
    if config.size_of_head * config.num_heads != config.d_model:
        found.append(f"head_size = {config.head_size}")
    return found


def save_for_original(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[Path]:
    """Write a checkpoint's weights as safetensors that the original's classes load by name.

    If the tokenizer is the original's, its vocabulary is written too. It cannot read others.

    Returns:
        The files written.

    Raises:
        ConfigError: the model has something that the original's classes cannot compute.
    """
    own = find_model(folder) / WEIGHTS
    if os.path.exists(out) and own.exists() and own.samefile(out):
        raise ConfigError(f"{os.fspath(out)} is the checkpoint's own: name another file")
    model, tokenizer, _ = load_model(folder)
    if other := [*differences(model.config, ORIGINAL_OPTIONS), *other_heads(model.config)]:
        raise ConfigError(
            f"the original's classes cannot compute this model: it has {', '.join(other)}"
        )
    path = Path(out)
    save_safetensors(model.state_dict(), path, {"format": "pt"})
    if not isinstance(tokenizer, OriginalTokenizer):
        return [path]
    return [path, tokenizer.save(path.with_name(VOCABULARY))]
