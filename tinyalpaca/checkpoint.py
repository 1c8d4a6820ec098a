"""A folder that holds all that is needed to generate: weights, configuration, tokenizer.

    model.safetensors   the weights, by name
    config.json         {"format": 1, "model": {...}, "training": {...}}
    tokenizer.json      the tokenizer

Nothing in it is ever unpickled, and each file is replaced whole or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from minigrad import Generator
from minigrad.device import Device
from minigrad.files import FileFormatError, write_text_atomically
from minigrad.serialization import load_safetensors, save_safetensors
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig, from_dict
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.tokenizer import load_tokenizer
from tinyalpaca.tokenizer_base import Tokenizer

FORMAT = 1
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


class Loaded(NamedTuple):
    """What a checkpoint folder holds."""

    model: TinyAlpaca
    tokenizer: Tokenizer
    training: TrainConfig | None


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """Make a folder and prove that files can be written there, before hours are spent.

    Raises:
        OSError: it cannot be made or written; says what to do.
    """
    path = Path(folder)
    probe = path / f".write-test-{secrets.token_hex(4)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise type(error)(
            error.errno,
            f"the output folder cannot be written ({error.strerror}); choose another with --out",
            str(path),
        ) from error
    return path


def save_model(
    folder: str | os.PathLike[str],
    model: TinyAlpaca,
    tokenizer: Tokenizer,
    training: TrainConfig | None = None,
) -> Path:
    """Write weights, configuration and tokenizer into an existing folder, which is returned."""
    path = Path(folder)
    config: dict[str, Any] = {"format": FORMAT, "model": dataclasses.asdict(model.config)}
    if training is not None:
        config["training"] = dataclasses.asdict(training)
    tokenizer.save(path / TOKENIZER)
    write_text_atomically(path / CONFIG, json.dumps(config, indent=2) + "\n")
    save_safetensors(model.state_dict(), path / WEIGHTS)
    return path


def load_model(folder: str | os.PathLike[str], device: Device | str = "cpu") -> Loaded:
    """Read what `save_model` wrote; the model is in evaluation mode.

    Raises:
        FileNotFoundError: there is no such folder, or a file is missing; says how to make one.
        FileFormatError: a file is damaged, or the weights belong to another configuration.
    """
    path = Path(folder)
    if not (path / CONFIG).is_file():
        raise FileNotFoundError(
            f"{path} holds no trained model ({CONFIG} is missing). Train one with\n"
            f"    python examples/train_shakespeare.py --out {path}\n"
            "or name another folder with --checkpoint."
        )
    model_config, training = _read_config(path / CONFIG)
    tokenizer = load_tokenizer(path / TOKENIZER)
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
    model.to(device).eval()
    return Loaded(model, tokenizer, training)


def _read_config(path: Path) -> tuple[ModelConfig, TrainConfig | None]:
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
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FileFormatError):
            raise
        problem = (
            str(error) if isinstance(error, ConfigError) else f"not a configuration ({error!r})"
        )
        raise FileFormatError(path, problem) from error
