"""Reading `config.json` beside a model's weights, and comparing it with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.storage import FileFormatError, inspect_safetensors
from tinyalpaca.chat import ChatTemplate, from_json
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig, from_dict
from tinyalpaca.lora import LoRA
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.parameter_names import parameter_shapes, with_present_names
from tinyalpaca.runs.layout import CONFIG, WEIGHTS

FORMAT = 1
MOST_PROBLEMS = 100  # that an error lists
LONGEST_ROTARY = 1 << 20  # positions, whose angles are computed ahead


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
            "or name the folder of another one."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "format" not in content and "model_type" in content:
            raise FileFormatError(
                path,
                f"this is Hugging Face's, of a {content['model_type']}; make a checkpoint with\n"
                f"    tinyalpaca convert {folder} OUT",
            )
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


def class_in(content: dict[str, Any]) -> str:
    """The name of the model's class in the `content` of CONFIG."""
    own = content.get("own", {})
    return own.get("model", TinyAlpaca.__name__) if isinstance(own, dict) else "?"


def check_class(folder: Path, content: dict[str, Any], model: Any) -> None:
    """Raise `FileFormatError` if `content` of CONFIG is of another class of models than `model`.

    If `model` is a function instead of a class, nothing is checked.
    """
    wanted = class_in(content)
    if isinstance(model, type) and model.__name__ != wanted:
        raise FileFormatError(
            folder / CONFIG,
            f"these are weights of a {wanted}, not of a {model.__name__}: pass its class, as in "
            f"tinyalpaca.load(folder, model={wanted})",
        )


def check_sizes(folder: Path, config: ModelConfig) -> None:
    """Compare a configuration with the shapes in the weights' file, before memory is allocated.

    Raises:
        FileFormatError: they do not belong together; lists the differences.
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


def lora_of(folder: Path, content: dict[str, Any]) -> LoRA | None:
    """The adapters in the `content` of CONFIG, or None.

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
    """The tokens that end a text, besides the tokenizer's own, in the `content` of CONFIG.

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
    """The chat template in the `content` of CONFIG, or None if there is none.

    Raises:
        FileFormatError: it says something that makes no sense.
    """
    if "chat" not in content:
        return None
    try:
        return from_json(content["chat"])
    except ValueError as error:
        raise FileFormatError(folder / CONFIG, str(error)) from error
