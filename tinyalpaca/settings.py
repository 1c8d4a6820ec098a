"""How settings are declared, checked, read from JSON and offered as flags.

A setting is a dataclass field with a default and a help text, written down once.
"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import field
from typing import Any


def setting(default: Any, help: str) -> Any:
    """A dataclass field with a default and a help text."""
    return field(default=default, metadata={"help": help})


class ConfigError(ValueError):
    """A setting that makes no sense. The message names it and says what would."""


def check_choices(config: Any) -> None:
    """Raise `ConfigError` for a setting that is none of its choices."""
    for name, hint in typing.get_type_hints(type(config)).items():
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
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(f"{cls.__name__} has no setting {name!r}; it has {sorted(hints)}")
        choices = typing.get_args(hints[name])
        wanted = type(choices[0]) if choices else hints[name]
        fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
        if not fits and not (wanted is float and type(value) is int and abs(value) < 1e300):
            raise ConfigError(f"{cls.__name__}: {name} must be {wanted.__name__}, not {value!r}")
    return cls(**values)


def add_arguments(parser: argparse.ArgumentParser, cls: Any, title: str) -> None:
    """Add a flag for each field of a config: `d_model` becomes `--d-model`."""
    group = parser.add_argument_group(title)
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
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


def from_arguments(cls: Any, args: argparse.Namespace, **defaults: Any) -> Any:
    """A config from parsed flags; `defaults` stand in for flags that were not given."""
    return cls(**{**defaults, **given_arguments(cls, args)})
