"""Starting from existing weights, and training only some of them."""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase
from typing import Any

from minigrad import Generator, nn
from tinyalpaca.config import ConfigError, TrainConfig
from tinyalpaca.lora import LoRA, add_adapters
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs import find_model, load_model
from tinyalpaca.runs.checksums import sha256_of
from tinyalpaca.runs.config_file import class_in, read_config
from tinyalpaca.runs.layout import WEIGHTS


def sizes_of(folder: str, given: dict[str, Any], model: Any = TinyAlpaca) -> Any:
    """The settings of the model in a folder, with the dropout that is `given`.

    Raises:
        ConfigError: other settings are given than it has.
        FileNotFoundError, FileFormatError: there is no such model.
    """
    config = read_config(find_model(folder), model)[0]
    other = {
        name: value
        for name, value in given.items()
        if name != "dropout" and value != getattr(config, name) and (name != "vocab_size" or value)
    }
    if other:
        lines = [
            f"{name}: {getattr(config, name)!r} there, {value!r} here"
            for name, value in other.items()
        ]
        raise ConfigError(
            f"the model in {folder} has other settings:\n  " + "\n  ".join(lines) + "\n"
            "--init-from takes the model as it is: leave these out"
        )
    if "dropout" in given:
        config = dataclasses.replace(config, dropout=given["dropout"])
    return config


def take_weights(model: Any, folder: str) -> None:
    """Load the weights in a folder into a model.

    Raises:
        FileNotFoundError, FileFormatError: there are none, or they are damaged.
        ValueError: they belong to a model of other sizes.
    """
    content = read_config(find_model(folder), type(model))[2]
    ours = class_in(content) == TinyAlpaca.__name__  # your own class may begin with ours
    loaded = load_model(folder, model=TinyAlpaca if ours else type(model))
    model.load_state_dict(loaded.model.state_dict())
    take_manners(model, loaded.model)


def take_manners(model: Any, other: Any) -> None:
    """Copy end tokens and chat template of another model or a saved run to a model."""
    for name in ("end_tokens", "chat_template"):
        if hasattr(model, name) and hasattr(other, name):  # as models of your own need not
            setattr(model, name, getattr(other, name))


def add_lora(model: Any, config: TrainConfig) -> None:
    """Add the adapters of the settings to a model with the weights in `init_from`.

    Raises:
        ConfigError: there are no such layers.
    """
    base = find_model(config.init_from)
    digest = sha256_of(base / WEIGHTS)
    lora = LoRA(config.lora_rank, config.lora_alpha, config.lora_layers, str(base), digest)
    add_adapters(model, lora, Generator(config.seed))


def freeze(model: nn.Module, patterns: str) -> None:
    """Exclude from training all parameters whose names match one of the patterns.

    Args:
        patterns: as of files, separated by commas: "embedding.*,*.bias".

    Raises:
        ConfigError: a pattern matches no parameter, or nothing is left to train.
    """
    named = dict(model.named_parameters())
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        matching = [name for name in named if fnmatchcase(name, pattern)]
        if not matching:
            shown = ", ".join(list(named)[:8])
            raise ConfigError(f"--freeze {pattern!r} matches no parameter of: {shown}, ...")
        for name in matching:
            named[name].requires_grad = False
    if not any(p.requires_grad for p in named.values()):
        raise ConfigError(f"--freeze {patterns!r} leaves no parameter to train")
