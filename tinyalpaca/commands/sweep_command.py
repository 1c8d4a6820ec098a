"""The command `sweep`: runs that differ in some settings, and a table of their results."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyalpaca.commands.train_command import add_settings_flags, settings_given
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.console import deliver
from tinyalpaca.presets import PRESETS
from tinyalpaca.settings import hints_of

DESCRIPTION = """Train with every combination of some settings, and show which is best.

  tinyalpaca sweep --vary learning_rate=1e-3,3e-3 --vary seed=0,1 --epochs 2 --out runs/sweep

Each run is a folder in --out; the text is read once. A sweep that was stopped goes on when it is
called again. The other flags are those of train."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to vary, and the flags of training."""
    parser.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="SETTING=A,B,...",
        help="a setting and its values; again for another, of which all combinations are tried",
    )
    add_settings_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Train, and print the table. The exit status is 1 if a run failed."""
    from tinyalpaca.training.sweep import TABLE, sweep, table

    name, model, training = settings_given(args)
    preset = PRESETS[name]
    vary = dict(parsed(text) for text in args.vary)
    if len(vary) < len(args.vary):
        raise ConfigError("--vary names a setting twice: give all its values at once")
    settings = {**preset.training, "out": "runs/sweep", "quiet": True, **training}
    rows = sweep(TrainConfig(**settings), vary, ModelConfig(**{**preset.model, **model}))
    deliver(f"{table(rows)}\nIn {Path(settings['out']) / TABLE} too")
    return int(any(row["nats_per_char"] is None for row in rows))


def parsed(text: str) -> tuple[str, Sequence[Any]]:
    """A setting and its values.

    Raises:
        ConfigError: the setting is unknown, or a value has the wrong type.
    """
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    hints = hints_of(TrainConfig) | hints_of(ModelConfig)
    if not equals or name not in hints or name == "out":
        names = [f.name for cls in (TrainConfig, ModelConfig) for f in dataclasses.fields(cls)]
        raise ConfigError(f"--vary {text!r} is not SETTING=A,B,... with one of {', '.join(names)}")
    choices = typing.get_args(hints[name])
    kind = type(choices[0]) if choices else hints[name]
    try:
        return name, [_value(kind, value.strip()) for value in values.split(",")]
    except (ValueError, KeyError):
        raise ConfigError(f"--vary {text!r}: {name} must be {kind.__name__}") from None


def _value(kind: type, text: str) -> Any:
    return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
