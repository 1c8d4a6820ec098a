"""How settings are declared, checked, read from JSON and offered as flags.

A setting is a dataclass field with a default and a help text, written down once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import json
import os
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def setting(default: Any, help: str, group: str = "") -> Any:
    """A dataclass field with a default and a help text.

    Args:
        group: its name begins a group of settings, to which those that follow belong.
    """
    return field(default=default, metadata={"help": help, "group": group})


def groups_of(cls: Any) -> dict[str, list[str]]:
    """The names of a config's settings by group; one without groups is one, named ""."""
    groups: dict[str, list[str]] = {}
    group = ""
    for f in dataclasses.fields(cls):
        group = f.metadata["group"] or group
        groups.setdefault(group, []).append(f.name)
    return groups


class ConfigError(ValueError):
    """A setting that makes no sense. The message names it and says what is allowed."""


@functools.cache
def hints_of(cls: Any) -> dict[str, Any]:
    """The types of a config's settings by name. Evaluating them takes longer than all checks."""
    return typing.get_type_hints(cls)


def check_choices(config: Any) -> None:
    """Raise `ConfigError` if a setting has none of the allowed values."""
    cls: Any = type(config)
    for name, hint in hints_of(cls).items():
        choices = typing.get_args(hint)
        if choices and getattr(config, name) not in choices:
            raise ConfigError(
                f"{name} must be one of {', '.join(map(repr, choices))}, not "
                f"{getattr(config, name)!r}"
            )


def from_dict(cls: Any, values: Mapping[str, Any]) -> Any:
    """A config from a dictionary, for example one read from JSON.

    Raises:
        ConfigError: an unknown setting, or a value of the wrong type; names it.
    """
    check_types(cls, values)
    return cls(**values)


def check_types(cls: Any, values: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a setting that a config does not have, or of another type."""
    hints = hints_of(cls)
    for name, value in values.items():
        if name not in hints:
            meant = nearest(name, hints) or f"; it has {sorted(hints)}"
            raise ConfigError(f"{cls.__name__} has no setting {name!r}{meant}")
        choices = typing.get_args(hints[name])
        wanted = type(choices[0]) if choices else hints[name]
        fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
        if not fits and not (wanted is float and type(value) is int and abs(value) < 1e300):
            raise ConfigError(f"{cls.__name__}: {name} must be {wanted.__name__}, not {value!r}")


# What settings are called elsewhere.
ELSEWHERE = {
    **{"lr": "learning_rate", "batch": "batch_size", "block_size": "max_seq_len"},
    **{"n_layer": "num_layers", "n_head": "num_heads", "n_embd": "d_model", "steps": "max_steps"},
    **{"hidden_size": "d_model", "context": "max_seq_len", "wd": "weight_decay"},
    **{"max_tokens": "max_new_tokens", "max_length": "max_new_tokens"},
}


def nearest(name: str, names: Iterable[str]) -> str:
    """The words "; did you mean ...?" for an unknown name, or "" if no known name is similar."""
    names = list(names)
    close = difflib.get_close_matches(name, names, 1)
    meant = ELSEWHERE.get(name.replace("-", "_"), close[0] if close else "")
    meant = meant if meant in names else meant.replace("_", "-")
    return f"; did you mean {meant}?" if meant in names else ""


def _plain(value: Any, wanted: Any) -> Any:
    """A number of NumPy's as Python's, and 0 and 1 as booleans where these are wanted."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    return bool(value) if wanted is bool and type(value) is int and value in (0, 1) else value


def explained(cls: type[T]) -> type[T]:
    """A dataclass of settings that says what is wrong with a name or a type."""
    kind: Any = cls
    init: Any = cls.__init__
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **given: Any) -> None:
        wanted = hints_of(kind)
        for name in given:
            if name not in names:
                raise ConfigError(f"{cls.__name__} has no setting {name!r}{nearest(name, names)}")
        values = {**dict(zip(names, args, strict=False)), **given}
        plain = {n: _plain(v, wanted.get(n)) for n, v in values.items()}
        # A path names a text as well as its name does.
        check_types(cls, {n: v for n, v in plain.items() if not isinstance(v, os.PathLike)})
        init(self, *args, **given)

    setattr(cls, "__init__", __init__)  # noqa: B010 (type checkers refuse the assignment)
    return cls


def add_arguments(parser: argparse.ArgumentParser, cls: Any, title: str) -> None:
    """Add a flag for each field of a config: `d_model` becomes `--d-model`."""
    group: Any = None
    hints = hints_of(cls)
    for f in dataclasses.fields(cls):
        if group is None or f.metadata["group"]:
            name = f.metadata["group"]
            group = parser.add_argument_group(f"{title}: {name}" if name else title)
        hint, choices = hints[f.name], typing.get_args(hints[f.name])
        options: dict[str, Any] = {"default": None, "dest": f.name}
        text = f.metadata["help"].replace("%", "%%")
        default = f.default if f.default != "" else "none"
        options["help"] = f"{text} (default: {default})"
        if hint is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif choices:
            options["choices"] = choices
        else:
            options["type"] = hint
            options["metavar"] = {int: "N", float: "X", str: "TEXT"}[hint]
        group.add_argument("--" + f.name.replace("_", "-"), **options)


def given_arguments(cls: Any, args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a config that parsed flags give, without those left out."""
    return {
        f.name: getattr(args, f.name)
        for f in dataclasses.fields(cls)
        if getattr(args, f.name, None) is not None
    }


def read_settings(path: str | os.PathLike[str], **configs: Any) -> dict[str, dict[str, Any]]:
    """Settings from a file: TOML, or the `config.json` of a run.

        preset = "best"

        [model]
        d_model = 128

        [training]
        epochs = 3

        [training.optimizer]  # or all of them in [training]
        learning_rate = 1e-3

    Of a run's file, `out` and the size of the vocabulary are left out; the latter follows from the
    tokenizer.

    Args:
        configs: the classes of the tables, by name.

    Returns:
        The settings of each table, and "" for what stands above them.

    Raises:
        ConfigError: it is not such a file, or has an unknown setting.
        OSError: it cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it is not a table")
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is neither TOML nor a run's config.json: {error}") from error
    _require_own_tables(path, content, configs)
    found = {name: _flat(path, name, cls, content.pop(name, {})) for name, cls in configs.items()}
    if path.suffix == ".json":
        if content.get("own"):
            raise ConfigError(f"{path} is of a run with parts from Python: {content['own']}")
        found["training"].pop("out", None)
        found["model"].pop("vocab_size", None)
        return {**found, "": {}}
    return {**found, "": content}


def _require_own_tables(path: Path, content: dict[str, Any], configs: dict[str, Any]) -> None:
    """Raise `ConfigError` if a setting stands in the table of another config, and say in which."""
    names = {table: {f.name for f in dataclasses.fields(cls)} for table, cls in configs.items()}
    for table in names:
        given = content.get(table)
        if not isinstance(given, dict):
            continue
        if "preset" in given:
            raise ConfigError(f"{path}: preset stands above the tables, not in [{table}]")
        for other, its in names.items():
            misplaced = given.keys() & its - names[table]
            if misplaced:
                raise ConfigError(f"{path}: {min(misplaced)} belongs into [{other}], not [{table}]")


def _flat(path: Path, table: str, cls: Any, content: Any) -> dict[str, Any]:
    """The settings of a table, with those of its groups."""
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: {table} must be a table of settings, not {content!r}")
    flat: dict[str, Any] = {}
    names = {f.name for f in dataclasses.fields(cls)}
    for name, value in content.items():
        members = groups_of(cls).get(name)
        if members is None or (name in names and not isinstance(value, dict)):
            flat[name] = value
            continue
        if not isinstance(value, dict) or not value.keys() <= set(members):
            raise ConfigError(f"{path}: [{table}.{name}] has {members}, not {value!r}")
        flat |= value
    try:
        check_types(cls, flat)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return flat
