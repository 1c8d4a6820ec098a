"""A folder with everything that generation needs: weights, configuration, tokenizer.

    model.safetensors   the weights, by name
    config.json         {"format": 1, "model": {...}, "training": {...}, "seen_tokens": [...],
                        "end_tokens": [...], "chat": {...}}, and "own" names what a user has
                        brought in Python
    tokenizer.json      the tokenizer
    SHA256SUMS          their checksums

`tinyalpaca.training.checkpoint` adds what is needed to resume training. Nothing is ever unpickled,
and each file is written atomically.
"""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigrad import Generator
from minigrad.device import Device
from minigrad.storage import (
    FileFormatError,
    load_safetensors,
    remove_link,
    save_safetensors,
    write_text_atomically,
)
from tinyalpaca.config import TrainConfig
from tinyalpaca.lora import LoRA, add_adapters, load_weights, merge, weights_to_save
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs.checksums import SUMS, check_sums, forget_sums, sha256_of, write_sums
from tinyalpaca.runs.config_file import (
    FORMAT,
    chat_template,
    check_class,
    check_sizes,
    end_tokens,
    lora_of,
    read_config,
    seen_tokens,
)
from tinyalpaca.runs.layout import CONFIG, TOKENIZER, TOKENIZER_VOCABULARY, WEIGHTS, read_pointer
from tinyalpaca.runs.run_folder import RunFolder
from tinyalpaca.tokenizer import Tokenizer, load_tokenizer


class Loaded(NamedTuple):
    """What a checkpoint folder holds."""

    model: TinyAlpaca
    tokenizer: Tokenizer
    training: TrainConfig | None


def save_model(
    folder: str | os.PathLike[str],
    model: TinyAlpaca,
    tokenizer: Tokenizer,
    training: TrainConfig | None = None,
) -> Path:
    """Write weights, configuration and tokenizer into an existing folder, which is returned.

    Args:
        model: a `TinyAlpaca`, or one of a class of your own that has a `config` and is loaded again
            by passing its class to `load_model`.
    """
    path = Path(folder)
    forget_sums(path)
    written = (WEIGHTS, CONFIG, TOKENIZER, TOKENIZER_VOCABULARY)
    for name in written:
        remove_link(path / name)
    kind = type(model).__name__
    own = {} if type(model) is TinyAlpaca else {"model": kind}
    write_model(path, model, tokenizer, training, own)
    write_sums(path, [name for name in written if (path / name).is_file()])
    return path


def write_model(
    path: Path,
    model: Any,
    tokenizer: Tokenizer,
    training: TrainConfig | None,
    own: dict[str, str],
) -> None:
    """The files of `save_model` without their checksums; `own` names what is the user's."""
    config: dict[str, Any] = {"format": FORMAT, "model": dataclasses.asdict(model.config)}
    if training is not None:
        config["training"] = dataclasses.asdict(training)
    if own:
        config["own"] = own
    if getattr(model, "lora", None) is not None:
        config["lora"] = model.lora._asdict()
    seen = getattr(model, "seen_tokens", None)
    if seen is not None:  # the first and last of each range
        steps = np.diff(seen.astype(np.int8), prepend=0, append=0)
        edges = np.flatnonzero(steps)
        config["seen_tokens"] = [[int(a), int(b) - 1] for a, b in edges.reshape(-1, 2)]
    if getattr(model, "end_tokens", ()):
        config["end_tokens"] = [*model.end_tokens]
    if getattr(model, "chat_template", None) is not None:
        config["chat"] = model.chat_template._asdict()
    tokenizer.save(path / TOKENIZER)
    write_text_atomically(path / CONFIG, json.dumps(config, indent=2) + "\n")
    save_safetensors(weights_to_save(model), path / WEIGHTS)


def find_model(path: str | os.PathLike[str]) -> Path:
    """The folder with the model that `path` means.

    `path` may be that folder itself, a pointer (`checkpoints/best`), or the folder of a run before
    its first validation.
    """
    folder = Path(path)
    if folder.is_file():
        return read_pointer(folder) or folder
    if not (folder / CONFIG).is_file():
        run = RunFolder(folder)
        return run.best() or run.latest() or folder
    return folder


def load_model(
    folder: str | os.PathLike[str],
    device: Device | str = "cpu",
    model: Any = TinyAlpaca,
    *,
    merged: bool = True,
) -> Loaded:
    """Read what `save_model` wrote; the model is in evaluation mode.

    Args:
        folder: of a run, of one of its checkpoints, or any that `save_model` wrote.
        model: the class of the model, if it is one of your own: it is made from its settings and a
            `minigrad.Generator`. Settings that are no `ModelConfig` are of its `config_class`.
        merged: merge adapters (LoRA) into their weights; otherwise they stay separate.

    Raises:
        FileNotFoundError: there is no such folder, or a file is missing; says how to make one.
        FileFormatError: a file is damaged, or the weights belong to another configuration.
    """
    path = find_model(folder)
    model_config, training, content = read_config(path, model)
    check_class(path, content, model)
    if model is TinyAlpaca and "lora" not in content:
        check_sizes(path, model_config)
    if (path / SUMS).is_file():
        check_sums(path, complete=False)  # a copy may lack what is not read here
    tokenizer = load_tokenizer(path / TOKENIZER if (path / TOKENIZER).is_file() else path)
    if tokenizer.vocab_size > model_config.vocab_size:
        raise FileFormatError(
            path / TOKENIZER,
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model only "
            f"{model_config.vocab_size}: they do not belong together",
        )
    rng = Generator(0)
    with rng.without_drawing() if model is TinyAlpaca else nullcontext():
        loaded = model(model_config, rng)
    weights, _ = load_safetensors(path / WEIGHTS, mapped=True)
    lora = lora_of(path, content)
    if lora is not None:
        add_to_base(loaded, lora)
    try:
        load_weights(loaded, weights, assign=model is TinyAlpaca)
    except ValueError as error:
        raise FileFormatError(
            path / WEIGHTS, f"these weights belong to another configuration: {error}"
        ) from error
    if lora is not None and merged:
        merge(loaded)
    loaded.seen_tokens = seen_tokens(path, content, tokenizer.vocab_size)
    loaded.end_tokens = end_tokens(path, content, tokenizer.vocab_size)
    loaded.chat_template = chat_template(path, content)
    loaded.to(device).eval()
    return Loaded(loaded, tokenizer, training)


def add_to_base(model: Any, lora: LoRA) -> None:
    """Give a new model the weights that adapters were added to, and new adapters.

    Raises:
        FileFormatError: the weights are missing, or have changed.
    """
    base = find_model(lora.base)
    if not (base / WEIGHTS).is_file():
        raise FileFormatError(base, "the model that these adapters were added to is not there")
    if sha256_of(base / WEIGHTS) != lora.base_sha256:
        raise FileFormatError(
            base / WEIGHTS, "these are other weights than those that the adapters were added to"
        )
    model.load_state_dict(load_model(base, model=type(model)).model.state_dict())
    add_adapters(model, lora, Generator(0))
