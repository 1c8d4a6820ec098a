"""All that is needed to go on training, in two more files beside the model's.

    optimizer.safetensors   the optimizer's averages; and the weights as trained, if
                            model.safetensors holds their average
    trainer.json            counters, sampler, schedule, random generator, results, versions

Nothing in them is ever unpickled. `tinyalpaca.training.trainer_state` decides what goes in.
"""

from __future__ import annotations

import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigrad.storage import (
    FileFormatError,
    load_safetensors,
    save_safetensors,
    write_text_atomically,
)
from tinyalpaca.checkpoint import WEIGHTS, check_sizes, read_config
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.model import present_name, with_present_names
from tinyalpaca.training.run_folder import OPTIMIZER, TRAINER

FORMAT = 1
KEYS = ("step", "sampler", "schedule", "random", "optimizer", "records", "best", "loss", "versions")


class TrainingState(NamedTuple):
    """What a training checkpoint holds.

    Attributes:
        model: the weights for use, by name.
        arrays: what stands in optimizer.safetensors.
        progress: what stands in trainer.json.
    """

    model: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    progress: dict[str, Any]


class SavedRun(NamedTuple):
    """A training checkpoint that has been read."""

    folder: Path
    model_config: ModelConfig
    training: TrainConfig
    state: TrainingState


def write_training(folder: Path, arrays: dict[str, np.ndarray], progress: dict[str, Any]) -> None:
    """Write both files into an existing folder."""
    save_safetensors(arrays, folder / OPTIMIZER)
    content = {"format": FORMAT, **progress, "versions": versions()}
    write_text_atomically(folder / TRAINER, json.dumps(content, indent=1) + "\n")


def read_training(folder: Path) -> SavedRun:
    """Read a checkpoint whose checksums have been looked at.

    Raises:
        FileFormatError: it is of another format, or not a checkpoint of a training.
    """
    model_config, training, _ = read_config(folder)
    if training is None:
        raise FileFormatError(folder, "holds a model, but nothing of its training to go on with")
    path = folder / TRAINER
    try:
        progress = json.loads(path.read_text(encoding="utf-8"))
        found = progress["format"]
        missing = [key for key in KEYS if key not in progress]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(path, f"not the state of a training ({error!r})") from error
    if found != FORMAT:
        raise FileFormatError(
            path,
            f"format {found} is not one that this version reads ({FORMAT}); go on with the version "
            f"that wrote it: {progress.get('versions')}",
        )
    if missing:
        raise FileFormatError(path, f"not the state of a training: it lacks {', '.join(missing)}")
    check_sizes(folder, model_config)
    weights = with_present_names(load_safetensors(folder / WEIGHTS)[0])
    arrays = with_present_names(load_safetensors(folder / OPTIMIZER)[0])
    optimizer = progress["optimizer"]
    try:
        optimizer["names"] = [present_name(name) for name in optimizer["names"]]
        optimizer["numbers"] = with_present_names(optimizer["numbers"])
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(path, f"not the state of an optimizer ({error!r})") from error
    return SavedRun(folder, model_config, training, TrainingState(weights, arrays, progress))


@cache
def versions() -> dict[str, str | None]:
    """Of the package, NumPy and Python, and the git commit of the source if it has one."""
    try:
        package: str | None = metadata.version("minigrad")
    except metadata.PackageNotFoundError:
        package = None
    return {
        "minigrad": package,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "git_commit": git_commit(Path(__file__).resolve().parents[2]),
    }


def git_commit(source: Path) -> str | None:
    """The commit that is checked out in a folder, or None if it is no repository."""
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def optimizer_to_files(
    saved: dict[str, Any], names: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """An optimizer's `state_dict` as named arrays, and the rest for JSON.

    Args:
        saved: from `Optimizer.state_dict`.
        names: of the optimizer's parameters, in its order.
    """
    arrays, numbers = {}, {}
    for number, entry in saved["state"].items():
        name = names[number]
        for key, value in entry.items():
            if isinstance(value, np.ndarray):
                arrays[f"{key}/{name}"] = value
            else:
                numbers[f"{key}/{name}"] = value
    return arrays, {"names": names, "numbers": numbers, "groups": saved["param_groups"]}


def optimizer_from_files(
    arrays: dict[str, np.ndarray], rest: dict[str, Any], names: list[str]
) -> dict[str, Any]:
    """The inverse of `optimizer_to_files`.

    Raises:
        ValueError: the state is that of other parameters.
    """
    if rest["names"] != names:
        raise ValueError("the optimizer's state is that of other parameters")
    state: dict[int, dict[str, Any]] = {}
    for source in (arrays, rest["numbers"]):
        for full, value in source.items():
            key, _, name = full.partition("/")
            if name in names and key != "weights":
                state.setdefault(names.index(name), {})[key] = value
    return {"state": state, "param_groups": rest["groups"]}
