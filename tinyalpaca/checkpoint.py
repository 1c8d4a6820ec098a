"""A folder that holds all that is needed to generate: weights, configuration, tokenizer.

    model.safetensors   the weights, by name
    config.json         {"format": 1, "model": {...}, "training": {...}, "seen_tokens": [...],
                        "end_tokens": [...]}
    tokenizer.json      the tokenizer
    SHA256SUMS          their checksums

`tinyalpaca.training.training_checkpoint` adds what is needed to go on training. Nothing in it is
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
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig, from_dict
from tinyalpaca.model import TinyAlpaca, parameter_shapes, with_present_names
from tinyalpaca.tokenizer import load_tokenizer
from tinyalpaca.tokenizing.tokenizer_base import Tokenizer
from tinyalpaca.training.checksums import SUMS, check_sums, forget_sums, write_sums
from tinyalpaca.training.run_folder import (
    CONFIG,
    TOKENIZER,
    TOKENIZER_VOCABULARY,
    WEIGHTS,
    RunFolder,
    read_pointer,
)

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
    """Write weights, configuration and tokenizer into an existing folder, which is returned."""
    path = Path(folder)
    forget_sums(path)
    written = (WEIGHTS, CONFIG, TOKENIZER, TOKENIZER_VOCABULARY)
    for name in written:
        remove_link(path / name)
    write_model(path, model, tokenizer, training)
    write_sums(path, [name for name in written if (path / name).is_file()])
    return path


def write_model(
    path: Path, model: TinyAlpaca, tokenizer: Tokenizer, training: TrainConfig | None
) -> None:
    """The files of `save_model` without their checksums."""
    config: dict[str, Any] = {"format": FORMAT, "model": dataclasses.asdict(model.config)}
    if training is not None:
        config["training"] = dataclasses.asdict(training)
    if model.seen_tokens is not None:  # the first and last of each range
        steps = np.diff(model.seen_tokens.astype(np.int8), prepend=0, append=0)
        edges = np.flatnonzero(steps)
        config["seen_tokens"] = [[int(a), int(b) - 1] for a, b in edges.reshape(-1, 2)]
    if model.end_tokens:
        config["end_tokens"] = [*model.end_tokens]
    tokenizer.save(path / TOKENIZER)
    write_text_atomically(path / CONFIG, json.dumps(config, indent=2) + "\n")
    save_safetensors(model.state_dict(), path / WEIGHTS)


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


def load_model(folder: str | os.PathLike[str], device: Device | str = "cpu") -> Loaded:
    """Read what `save_model` wrote; the model is in evaluation mode.

    Args:
        folder: of a run, of one of its checkpoints, or any that `save_model` wrote.

    Raises:
        FileNotFoundError: there is no such folder, or a file is missing; says how to make one.
        FileFormatError: a file is damaged, or the weights belong to another configuration.
    """
    path = find_model(folder)
    if not (path / CONFIG).is_file():
        raise FileNotFoundError(
            f"{path} holds no trained model ({CONFIG} is missing). Train one with\n"
            f"    python examples/train_shakespeare.py --out {path}\n"
            "or name another folder with --checkpoint."
        )
    model_config, training, content = read_config(path)
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
    model = TinyAlpaca(model_config, Generator(0))
    weights, _ = load_safetensors(path / WEIGHTS)
    try:
        model.load_state_dict(weights)
    except ValueError as error:
        raise FileFormatError(
            path / WEIGHTS, f"these weights belong to another configuration: {error}"
        ) from error
    model.seen_tokens = seen_tokens(path, content, tokenizer.vocab_size)
    model.end_tokens = end_tokens(path, content, tokenizer.vocab_size)
    model.to(device).eval()
    return Loaded(model, tokenizer, training)


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


def read_config(folder: Path) -> tuple[ModelConfig, TrainConfig | None, dict[str, Any]]:
    """The configurations of a model and, if it is there, of its training; and all of the file.

    Raises:
        FileFormatError: the file is not a configuration of this format.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise FileFormatError(
                path, f"format {content['format']} is not one that this version reads ({FORMAT})"
            )
        training = content.get("training")
        return (
            from_dict(ModelConfig, content["model"]),
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
