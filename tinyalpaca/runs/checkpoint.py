"""A folder that holds all that is needed to generate: weights, configuration, tokenizer.

    model.safetensors   the weights, by name
    config.json         {"format": 1, "model": {...}, "training": {...}, "seen_tokens": [...],
                        "end_tokens": [...], "chat": {...}}, and "own" names what a user has
                        brought in Python
    tokenizer.json      the tokenizer
    SHA256SUMS          their checksums

`tinyalpaca.training.checkpoint` adds what is needed to go on training. Nothing in it is
ever unpickled, and each file is replaced whole or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigrad import Generator
from minigrad.device import Device
from minigrad.storage import (
    FileFormatError,
    inspect_safetensors,
    load_safetensors,
    remove_link,
    save_safetensors,
    write_text_atomically,
)
from tinyalpaca.chat import ChatTemplate, from_json
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig, from_dict
from tinyalpaca.lora import LoRA, add_adapters, load_weights, merge, weights_to_save
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.parameter_names import parameter_shapes, with_present_names
from tinyalpaca.runs.checksums import SUMS, check_sums, forget_sums, sha256_of, write_sums
from tinyalpaca.runs.run_folder import (
    CONFIG,
    TOKENIZER,
    TOKENIZER_VOCABULARY,
    WEIGHTS,
    RunFolder,
    read_pointer,
)
from tinyalpaca.tokenizer import Tokenizer, load_tokenizer

FORMAT = 1
MOST_PROBLEMS = 100  # that an error lists
LONGEST_ROTARY = 1 << 20  # positions, whose angles are computed ahead


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

    `path` may be that folder itself, a pointer (`checkpoints/best`), or the folder of a run that
    has not come to its first validation yet.
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
        merged: add adapters (LoRA) to the weights that they belong to; else they stay apart.

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
    loaded = model(model_config, Generator(0))
    weights, _ = load_safetensors(path / WEIGHTS)
    lora = lora_of(path, content)
    if lora is not None:
        add_to_base(loaded, lora)
    try:
        load_weights(loaded, weights)
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


def lora_of(folder: Path, content: dict[str, Any]) -> LoRA | None:
    """What adapters the `content` of CONFIG tells of, or None.

    Raises:
        FileFormatError: it makes no sense.
    """
    if "lora" not in content:
        return None
    try:
        lora = LoRA(**content["lora"])
        kinds = [type(value) for value in lora]
        if kinds[:1] + kinds[2:] != [int, str, str, str] or kinds[1] not in (int, float):
            raise TypeError(f"{lora} has values of other types")
    except TypeError as error:
        raise FileFormatError(folder / CONFIG, f"lora: {error}") from error
    return lora


def add_to_base(model: Any, lora: LoRA) -> None:
    """Give a new model the weights that adapters were added to, and new adapters.

    Raises:
        FileFormatError: the weights are not where they were, or others.
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


def class_in(content: dict[str, Any]) -> str:
    """The name of the model's class by the `content` of CONFIG."""
    own = content.get("own", {})
    return own.get("model", TinyAlpaca.__name__) if isinstance(own, dict) else "?"


def check_class(folder: Path, content: dict[str, Any], model: Any) -> None:
    """Raise `FileFormatError` if `content` of CONFIG is of another class of models than `model`.

    What makes models and is no class is not looked at.
    """
    wanted = class_in(content)
    if isinstance(model, type) and model.__name__ != wanted:
        raise FileFormatError(
            folder / CONFIG,
            f"these are weights of a {wanted}, not of a {model.__name__}: pass its class, as in "
            f"tinyalpaca.load(folder, model={wanted})",
        )


def seen_tokens(folder: Path, content: dict[str, Any], vocab_size: int) -> np.ndarray | None:
    """Which tokens were a target in training, (V,), or None if `content` of CONFIG does not say.

    Raises:
        FileFormatError: it says something that makes no sense.
    """
    ranges = content.get("seen_tokens")
    if ranges is None:
        return None
    seen = np.zeros(vocab_size, bool)
    try:
        for first, last in ranges:
            if not (type(first) is type(last) is int and 0 <= first <= last < vocab_size):
                raise ValueError(f"[{first}, {last}] is no range of {vocab_size} tokens")
            seen[first : last + 1] = True
    except (TypeError, ValueError) as error:
        raise FileFormatError(folder / CONFIG, f"seen_tokens: {error}") from error
    return seen


def end_tokens(folder: Path, content: dict[str, Any], vocab_size: int) -> tuple[int, ...]:
    """The tokens that end a text, besides the tokenizer's own, by the `content` of CONFIG.

    Raises:
        FileFormatError: it says something that makes no sense.
    """
    ends = content.get("end_tokens", [])
    if not isinstance(ends, list) or not all(type(e) is int and 0 <= e < vocab_size for e in ends):
        raise FileFormatError(
            folder / CONFIG,
            f"end_tokens must be a list of ids from 0 to {vocab_size - 1}, not {ends!r}",
        )
    return tuple(ends)


def chat_template(folder: Path, content: dict[str, Any]) -> ChatTemplate | None:
    """How conversations are written by the `content` of CONFIG, or None if it does not say.

    Raises:
        FileFormatError: it says something that makes no sense.
    """
    if "chat" not in content:
        return None
    try:
        return from_json(content["chat"])
    except ValueError as error:
        raise FileFormatError(folder / CONFIG, str(error)) from error


def check_sizes(folder: Path, config: ModelConfig) -> None:
    """Hold a configuration against the shapes in the weights' file, before memory is asked for.

    Raises:
        FileFormatError: they do not belong together; lists what is different.
    """
    if config.positions == "rotary" and config.max_seq_len > LONGEST_ROTARY:
        raise FileFormatError(
            folder / CONFIG,
            f"max_seq_len is {config.max_seq_len:,}; at most {LONGEST_ROTARY:,} are supported",
        )
    found = with_present_names(inspect_safetensors(folder / WEIGHTS)[0])
    problems = []
    for name, shape in parameter_shapes(config):
        info = found.pop(name, None)
        if info is None:
            problems.append(f"missing: {name} {shape}")
        elif info.shape != shape:
            problems.append(f"wrong shape: {name} is {shape} there, {info.shape} here")
        if len(problems) == MOST_PROBLEMS:
            problems.append("and more")
            break
    else:
        problems += [f"unexpected: {name}" for name in list(found)[:MOST_PROBLEMS]]
    if problems:
        raise FileFormatError(
            folder / WEIGHTS,
            f"these weights belong to another configuration than {CONFIG} beside them:\n  "
            + "\n  ".join(problems),
        )


def read_config(
    folder: Path, model: Any = TinyAlpaca
) -> tuple[Any, TrainConfig | None, dict[str, Any]]:
    """The configurations of a model and, if it is there, of its training; and all of the file.

    Args:
        model: its class.

    Raises:
        FileNotFoundError: there is no such file; says how to make one.
        FileFormatError: the file is not a configuration of this format.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no trained model ({CONFIG} is missing). Train one with\n"
            f"    python examples/train_shakespeare.py --out {folder}\n"
            "or name another folder with --checkpoint."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise FileFormatError(
                path, f"format {content['format']} is not one that this version reads ({FORMAT})"
            )
        training = content.get("training")
        return (
            from_dict(getattr(model, "config_class", ModelConfig), content["model"]),
            None if training is None else from_dict(TrainConfig, training),
            content,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, FileFormatError):
            raise
        problem = (
            str(error) if isinstance(error, ConfigError) else f"not a configuration ({error!r})"
        )
        raise FileFormatError(path, problem) from error
