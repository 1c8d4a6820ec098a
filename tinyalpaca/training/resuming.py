"""Resuming a run: from which checkpoint, and which settings may change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.console import Say
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs import RunFolder
from tinyalpaca.runs.checksums import check_sums
from tinyalpaca.runs.layout import CHECKPOINTS, REQUIRED, TRAINER, read_pointer
from tinyalpaca.training.checkpoint import SavedRun, read_training
from tinyalpaca.training.defaults import count_steps, make_schedule
from tinyalpaca.training.task import Task
from tinyalpaca.versions import versions

# What may change: how long, where, and what is printed. All else affects the numbers.
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
        "distributed",
        "shard_optimizer",
        "rank_timeout",
        "gradient_wire",
        "save_every",
        "save_minutes",
        "keep",
        "preflight",
        "log_every",
        "eval_every",
        "tensorboard",
        "eval_stride",
        "prompt",
        "sample_tokens",
        "epoch_sample_tokens",
        "quiet",
    }
)
JUMP = 2.0  # a learning rate that grows by more than this is worth a warning
# A text may have moved: the hash of its tokens shows whether it is the same.
TEXTS = frozenset({"data", "validation"})
PATHS = TEXTS | {"init_from"}  # they are kept whole, so that a run is resumed from any folder


def find_checkpoint(path: Path, say: Say, model: Any = TinyAlpaca) -> SavedRun:
    """The checkpoint to resume from: the newest good one of a run, or `path` itself.

    Args:
        model: the class of the model.

    Raises:
        FileNotFoundError: there is none.
        FileFormatError: all are damaged, or the one that was asked for is.
    """
    if path.is_file():
        path = read_pointer(path) or path
    if (path / TRAINER).is_file():
        check_sums(path, REQUIRED)
        return read_training(path, model)
    return read_training(RunFolder(path).newest_good(say), model)


def run_folder_of(saved: SavedRun) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    parent = saved.folder.parent
    return parent.parent if parent.name == CHECKPOINTS else saved.folder


def merge(
    saved: SavedRun, model_given: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[TrainConfig, list[str]]:
    """The settings of a resumed run, and the differences from before in words.

    Args:
        model_given, given: the settings that flags or a preset give.

    Raises:
        ConfigError: settings that affect the numbers would change; lists all of them.
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
            + "\nTo resume, leave these out, and a --preset that gives them. To train with them, "
            "start a new run with a new --out."
        )
    allowed = [line for name, line in _changes(saved.training, given).items() if name != "out"]
    return dataclasses.replace(saved.training, **given), allowed


def given_again(config: TrainConfig) -> dict[str, Any]:
    """All settings of a run, except those that the run has chosen by itself."""
    given = dataclasses.asdict(config)
    if not config.micro_batch_size:
        del given["micro_batch_size"]
    if config.init_from:
        del given["tokenizer"]
    return given


def refuse_other_parts(saved: SavedRun, now: Mapping[str, str]) -> None:
    """Raise `ConfigError` if the user's own parts are other ones `now` than before."""
    if saved.own != now:
        lines = [
            f"{part}: {saved.own.get(part, 'ours')} before, {now.get(part, 'ours')} now"
            for part in sorted({*saved.own, *now})
            if saved.own.get(part) != now.get(part)
        ]
        raise ConfigError(
            f"{saved.folder} was trained with other parts:\n  "
            + "\n  ".join(lines)
            + "\nGive the same ones to tinyalpaca.train(..., resume=True)."
        )


def refuse_to_go_back(saved: SavedRun, asked_for: Path, config: TrainConfig) -> None:
    """Raise `ConfigError` if a run would be resumed, in its folder, before its newest step."""
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
    """In words, the programs whose version has changed since the checkpoint was written."""
    before, now = saved.progress["versions"], versions()
    return [
        f"{name} {before.get(name)} then, {now[name]} now"
        for name in ("minigrad", "numpy")
        if before.get(name) != now[name]
    ]


def tell_rates(
    task: Task, step: int, config: TrainConfig, before: TrainConfig, tell: Say, warn: Say
) -> None:
    """Say how learning rates change with the number of steps, if that has changed.

    A schedule that falls until the last step is stretched over the new number of steps. So a run
    that had ended continues with the learning rate that the longer run has at that step.

    Args:
        step: updates made so far.
        before: the settings that the run has had until now.
    """
    planned = count_steps(before, task.steps_per_epoch)
    if planned == task.total_steps or not step:
        return
    base = task.schedule.base_lrs[0]
    optimizer = SimpleNamespace(param_groups=[{"lr": base}])
    old = make_schedule(optimizer, before, task.steps_per_epoch, planned)  # type: ignore[arg-type]
    last = old.lr_at(base, step - 1)
    following = task.learning_rate(step)
    end = task.learning_rate(max(step, task.total_steps - 1))
    line = (
        f"Learning rate: the {config.schedule} schedule is now for "
        f"{task.total_steps:,} steps instead of {planned:,}. It was {last:.2e} in the last "
        f"step, is {following:.2e} in the next and {end:.2e} at the end."
    )
    if following > JUMP * last:
        warn(
            f"Warning: {line} What was learned at low rates may be lost at first; for a small rate "
            "throughout, train anew with more epochs"
        )
    else:
        tell(line)
