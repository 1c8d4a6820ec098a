"""Going on with a run: which checkpoint, and what may be different this time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.console import Say
from tinyalpaca.training.checksums import check_sums
from tinyalpaca.training.run_folder import CHECKPOINTS, REQUIRED, TRAINER, RunFolder, read_pointer
from tinyalpaca.training.training_checkpoint import SavedRun, read_training, versions

# What may change: how long, where, and what is told. Everything else decides about the numbers.
MAY_CHANGE = frozenset(
    {
        "out",
        "epochs",
        "max_steps",
        "max_minutes",
        "patience",
        "skip_bad_steps",
        "device",
        "workers",
        "save_every",
        "save_minutes",
        "keep",
        "preflight",
        "log_every",
        "eval_stride",
        "prompt",
        "sample_tokens",
        "epoch_sample_tokens",
        "quiet",
    }
)
# A text may have moved: whether it is still the same is told by the hash of its tokens.
TEXTS = frozenset({"data", "validation"})


def find_checkpoint(path: Path, say: Say) -> SavedRun:
    """The checkpoint to go on from: the newest good one of a run, or the one that `path` is.

    Raises:
        FileNotFoundError: there is none.
        FileFormatError: all are damaged, or the one that was asked for is.
    """
    if path.is_file():
        path = read_pointer(path) or path
    if (path / TRAINER).is_file():
        check_sums(path, REQUIRED)
        return read_training(path)
    return read_training(RunFolder(path).newest_good(say))


def run_folder_of(saved: SavedRun) -> Path:
    """The run's folder that a checkpoint lies in."""
    parent = saved.folder.parent
    return parent.parent if parent.name == CHECKPOINTS else saved.folder


def merge(
    saved: SavedRun, model_given: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[TrainConfig, list[str]]:
    """The settings to go on with, and what is different from before in words.

    Args:
        model_given, given: the settings that flags or a preset give.

    Raises:
        ConfigError: a setting that decides about the numbers would change; lists all of them.
    """
    problems = differences(saved.model_config, {**model_given})
    problems += [
        line
        for name, line in _changes(saved.training, given).items()
        if name not in MAY_CHANGE | TEXTS
    ]
    if problems:
        raise ConfigError(
            f"{saved.folder} was trained with other settings:\n"
            + "\n".join(f"  {line}" for line in problems)
            + "\nTo resume, leave these out. To train with them, start a new run with a new --out."
        )
    allowed = [line for name, line in _changes(saved.training, given).items() if name != "out"]
    return dataclasses.replace(saved.training, **given), allowed


def refuse_to_go_back(saved: SavedRun, asked_for: Path, config: TrainConfig) -> None:
    """Raise `ConfigError` if a run is to go on, in its own folder, from before its newest step."""
    run = RunFolder(config.out)
    latest = run.latest()
    own = run_folder_of(saved).resolve() == run.path.resolve()
    one_checkpoint = asked_for.is_file() or (asked_for / TRAINER).is_file()
    if own and one_checkpoint and latest is not None and latest.name != saved.folder.name:
        raise ConfigError(
            f"there are newer checkpoints than {saved.folder} ({latest.name}), which this would "
            f"leave behind. Give --out a new folder, or go on from the newest: --resume {run.path}"
        )


def differences(config: ModelConfig, given: Mapping[str, Any]) -> list[str]:
    """In words, the settings of a model that would change."""
    return list(_changes(config, given).values())


def _changes(config: Any, given: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{name}: {getattr(config, name)!r} before, {value!r} now"
        for name, value in given.items()
        if getattr(config, name) != value
    }


def other_versions(saved: SavedRun) -> list[str]:
    """In words, the programs whose version is another than when the checkpoint was written."""
    before, now = saved.state.progress["versions"], versions()
    return [
        f"{name} {before.get(name)} then, {now[name]} now"
        for name in ("minigrad", "numpy")
        if before.get(name) != now[name]
    ]
