"""Writes a checkpoint as a folder that Hugging Face's `transformers` can load.

Only models that one of its classes can compute are written: see `gpt2_export` and `llama_export`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.storage import save_safetensors, write_text_atomically
from tinyalpaca.chat import ChatTemplate
from tinyalpaca.config import ConfigError, ModelConfig
from tinyalpaca.converting import gpt2_export, llama_export
from tinyalpaca.runs import load_model
from tinyalpaca.tokenizer import BPETokenizer, CharTokenizer, Tokenizer
from tinyalpaca.tokenizer.added_tokens import AddedToken
from tinyalpaca.tokenizer.tokenizer_files import added_token_to_json, to_json

FORMS: dict[str, Any] = {"gpt2": gpt2_export, "llama": llama_export}


def save_for_huggingface(
    folder: str | os.PathLike[str], out: str | os.PathLike[str], form: str
) -> list[Path]:
    """Write the model and the tokenizer of a checkpoint; returns the files.

    Args:
        form: one of `FORMS`.

    Raises:
        ConfigError: the form's classes cannot compute the model, or the library cannot represent
            the tokenizer; says why.
        FileExistsError: `out` already holds a model.
    """
    theirs = FORMS[form]
    model, tokenizer, _ = load_model(folder)
    state = {name: np.asarray(array) for name, array in model.state_dict().items()}
    if problems := theirs.problems(model.config, state):
        raise ConfigError(f"{theirs.NAME} cannot compute this model: it has {', '.join(problems)}")
    tokenizer_file = _tokenizer_file(tokenizer)
    path = Path(out)
    if (path / "config.json").exists():
        raise FileExistsError(f"{path} already holds a model; name another folder")
    path.mkdir(parents=True, exist_ok=True)
    between = tokenizer.end_token
    ends = [*([] if between is None else [between]), *model.end_tokens]
    begin = tokenizer.frame[0][0] if tokenizer.frame[0] else between
    end = ends if len(ends) > 1 else next(iter(ends), None)
    ids = {"bos_token_id": begin, "eos_token_id": end}
    # An ordinary token that is named here would become a special one.
    special = set(tokenizer.special_tokens.values())
    names = {"bos_token": begin, "eos_token": ends[-1] if ends else None}
    files = {
        "config.json": {**theirs.config_of(model.config), **ids},
        "generation_config.json": ids,
        "tokenizer.json": tokenizer_file,
        "tokenizer_config.json": {
            **_tokenizer_config(model.config),
            **_chat(model.chat_template, tokenizer),
            **{k: tokenizer.decode([token]) for k, token in names.items() if token in special},
        },
    }
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=1)
        write_text_atomically(path / name, text + "\n")
    weights = path / "model.safetensors"
    save_safetensors(theirs.tensors_of(state, model.config), weights, {"format": "pt"})
    return [weights, *(path / name for name in files)]


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
        "model": {  # a character tokenizer has no merges
            "type": "BPE",
            "vocab": {character: i for i, character in enumerate(tokenizer.characters)},
            "merges": [],
        },
    }


def _chat(template: ChatTemplate | None, tokenizer: Tokenizer) -> dict[str, str]:
    """The settings of the chat template: its text, and the special tokens that it names."""
    if template is None:
        return {}
    known = tokenizer.special_tokens
    named = {name: text for name, text in template.special_tokens.items() if text in known}
    return {"chat_template": template.template, **named}


def _tokenizer_config(config: ModelConfig) -> dict[str, Any]:
    """The tokenizer's settings, with the class that reads tokenizer.json without changing it."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.max_seq_len,
    }
