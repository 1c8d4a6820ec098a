"""Reads models from Hugging Face: folders with config.json, weights and the tokenizer.

config.json              sizes and settings; gpt2_weights.py and llama_weights.py translate them
model.safetensors        or shards, or PyTorch's files (`tinyalpaca.converting.shards`)
tokenizer.json           or GPT-2's two files
generation_config.json   which tokens end a text
tokenizer_config.json, chat_template.jinja   how a conversation becomes a text (`tinyalpaca.chat`)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigrad.storage import FileFormatError
from tinyalpaca.chat import SETTINGS, template_in
from tinyalpaca.config import ModelConfig
from tinyalpaca.converting import gpt2_weights, llama_weights
from tinyalpaca.converting.original_weights import filled_model
from tinyalpaca.converting.shards import load_folder
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.tokenizer import BPETokenizer, Tokenizer, load_tokenizer


class Family(NamedTuple):
    """How models of one `model_type` are translated to ours.

    Attributes:
        config: (path of config.json, its content) -> our configuration.
        weights: (path of the weights, its tensors, our configuration) -> tensors under our names.
    """

    config: Callable[[Path, Mapping[str, Any]], ModelConfig]
    weights: Callable[[Path, Mapping[str, np.ndarray], ModelConfig], dict[str, np.ndarray]]


LLAMA = Family(llama_weights.llama_config, llama_weights.translated)
FAMILIES = {
    "gpt2": Family(gpt2_weights.gpt2_config, gpt2_weights.translated),
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
}


def is_huggingface(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a model in Hugging Face's format, supported or not."""
    path = Path(folder) / "config.json"
    try:
        return path.is_file() and "model_type" in _read_json(path)
    except (OSError, FileFormatError):
        return False


def load_huggingface(
    folder: str | os.PathLike[str], warn: Callable[[str], None] = lambda line: None
) -> tuple[TinyAlpaca, Tokenizer]:
    """Load a model, in evaluation mode, and a tokenizer from a folder of `save_pretrained`.

    Args:
        warn: is called with a message if something is left out.

    Raises:
        FileFormatError: a file is damaged, or the model computes something that ours does not;
            names the setting.
        FileNotFoundError: a file is missing.
    """
    path = Path(folder)
    theirs = _read_json(path / "config.json")
    kind = theirs.get("model_type")
    if kind not in FAMILIES:
        raise FileFormatError(
            path / "config.json",
            f"model_type is {kind!r}; only {', '.join(FAMILIES)} can be loaded",
        )
    config = FAMILIES[kind].config(path / "config.json", theirs)
    weights, tensors = load_folder(path)
    model = filled_model(weights, config, FAMILIES[kind].weights(weights, tensors, config))
    tokenizer = _fitting_tokenizer(path, config.vocab_size, warn)
    ends = [end for end in end_tokens(path) if end < tokenizer.vocab_size]
    model.end_tokens = tuple(end for end in ends if end != tokenizer.end_token)
    settings = path / SETTINGS
    model.chat_template = template_in(path, _read_json(settings) if settings.is_file() else {})
    return model, tokenizer


def end_tokens(folder: Path) -> list[int]:
    """The tokens at which Hugging Face's library ends a text: none, one or several.

    A fine-tuned model often has its own, such as <|im_end|>. Configurations of small models may
    name GPT-2's token 50256, which is not in their vocabulary.

    Raises:
        FileFormatError: a named token is not a token id.
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
    """The folder's tokenizer, without special tokens for which the model has no embedding.

    Tokenizers often have special tokens that are never used, such as [PAD]. A model may have more
    embeddings than tokens, because their number is often rounded up.

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


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file.

    Raises:
        FileFormatError: it is not a JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, f"not a configuration of a model ({error!r})") from error
    if not isinstance(content, dict):
        raise FileFormatError(path, "not a configuration of a model: it holds no JSON object")
    return content
