"""All that is needed to resume training: the model's files and two more beside them.

    optimizer.safetensors   the optimizer's averages; and the weights as trained, if
                            model.safetensors holds their average
    trainer.json            the state of the run, schedule, random generator, versions

Nothing in them is ever unpickled.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigrad.device import CPU
from minigrad.storage import (
    FileFormatError,
    load_safetensors,
    save_safetensors,
    write_text_atomically,
)
from tinyalpaca.chat import ChatTemplate
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.lora import LoRA, load_weights
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.parameter_names import present_name, with_present_names
from tinyalpaca.runs.checkpoint import write_model
from tinyalpaca.runs.config_file import (
    chat_template,
    check_class,
    check_sizes,
    end_tokens,
    lora_of,
    read_config,
)
from tinyalpaca.runs.layout import OPTIMIZER, TRAINER, WEIGHTS
from tinyalpaca.training.state import TrainingState
from tinyalpaca.training.task import Task
from tinyalpaca.versions import versions

FORMAT = 1
KEYS = ("step", "sampler", "schedule", "random", "optimizer", "records", "best", "loss", "versions")


class SavedRun(NamedTuple):
    """A training checkpoint that has been read.

    Attributes:
        own: the user's own parts of the task, in words.
        lora: its adapters; then only their weights are saved.
        weights: for use, by name.
        arrays: the content of optimizer.safetensors.
        progress: the content of trainer.json.
        end_tokens, chat_template: as `TinyAlpaca` has them.
    """

    folder: Path
    model_config: ModelConfig
    training: TrainConfig
    own: dict[str, str]
    lora: LoRA | None
    weights: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    progress: dict[str, Any]
    end_tokens: tuple[int, ...]
    chat_template: ChatTemplate | None


def write_checkpoint(
    folder: Path,
    task: Task,
    state: TrainingState,
    tokenizer: Any,
    config: TrainConfig,
    data: str,
    averaged: bool = False,
) -> None:
    """Write all files of a checkpoint into an existing folder.

    Args:
        data: the fingerprint of the tokens.
        averaged: whether the weights for use are an average; then the trained ones are saved too.
    """
    arrays, optimizer = optimizer_to_files(task.optimizer.state_dict(), task.names)
    if averaged:
        named = zip(task.names, task.parameters, strict=True)
        arrays |= {f"weights/{name}": CPU.asarray(p.array) for name, p in named}
    rng = getattr(task.model, "rng", None)
    content = {
        "format": FORMAT,
        **state.to_json(),
        "schedule": task.schedule.state_dict(),
        "random": {} if rng is None else rng.state_dict(),
        "optimizer": optimizer,
        "data": data,
        "micro_batch_size": getattr(task.engine, "micro_batch_size", None),
        "versions": versions(),
    }
    save_safetensors(arrays, folder / OPTIMIZER)
    write_text_atomically(folder / TRAINER, json.dumps(content, indent=1) + "\n")
    with task.weights_for_use():
        write_model(folder, task.model, tokenizer, config, task.own)


def restore(
    task: Task, saved: SavedRun, data: str, name: str, average: Any = None
) -> TrainingState:
    """Restore a new task from a checkpoint. Returns the state of the run.

    Args:
        data: the fingerprint of the tokens.
        name: of the text, for messages.
        average: of the weights, an array like the flat parameters; or None.

    Raises:
        ValueError: it belongs to other data or another model.
        FileFormatError: its files do not hold the state of a training.
    """
    if saved.progress.get("data") != data:
        raise ValueError(
            f"{saved.folder} was trained on another text than {name!r} is now: "
            "to resume, give the same text as --data"
        )
    try:
        return _restore(task, saved, average)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(
            saved.folder / TRAINER, f"not the state of this training ({error!r})"
        ) from error


def _restore(task: Task, saved: SavedRun, average: Any) -> TrainingState:
    progress = saved.progress
    load_weights(task.model, saved.weights)
    if average is not None:
        average[...] = task.engine.flat.array
        for name, parameter in zip(task.names, task.parameters, strict=True):
            parameter.assign(saved.arrays[f"weights/{name}"])
    state = optimizer_from_files(saved.arrays, progress["optimizer"], task.names)
    task.optimizer.load_state_dict(state)
    task.schedule.load_state_dict(progress["schedule"])
    task.sampler.load_state_dict(progress["sampler"])
    if getattr(task.model, "rng", None) is not None:
        task.model.rng.load_state_dict(progress["random"])
    if hasattr(task.engine, "micro_batch_size") and progress["micro_batch_size"]:
        # Another size would add up the same gradients in another order.
        task.engine.micro_batch_size = progress["micro_batch_size"]
    return TrainingState.from_json(progress)


def read_training(folder: Path, model: Any = TinyAlpaca) -> SavedRun:
    """Read a checkpoint whose checksums have been checked.

    Args:
        model: the class of the model.

    Raises:
        FileFormatError: it is of another format, or not a checkpoint of a training.
    """
    model_config, training, content = read_config(folder, model)
    check_class(folder, content, model)
    if training is None:
        raise FileFormatError(
            folder, "holds a model, but nothing of its training, so it cannot be resumed"
        )
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
            f"format {found} is not one that this version reads ({FORMAT}); resume with the "
            f"version that wrote it: {progress.get('versions')}",
        )
    if missing:
        raise FileFormatError(path, f"not the state of a training: it lacks {', '.join(missing)}")
    if model is TinyAlpaca and "lora" not in content:
        check_sizes(folder, model_config)
    weights = with_present_names(load_safetensors(folder / WEIGHTS)[0])
    arrays = with_present_names(load_safetensors(folder / OPTIMIZER)[0])
    optimizer = progress["optimizer"]
    try:
        optimizer["names"] = [present_name(name) for name in optimizer["names"]]
        optimizer["numbers"] = with_present_names(optimizer["numbers"])
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(path, f"not the state of an optimizer ({error!r})") from error
    own = content.get("own", {})
    lora = lora_of(folder, content)
    ends = end_tokens(folder, content, getattr(model_config, "vocab_size", sys.maxsize))
    saved = (folder, model_config, training, own, lora, weights, arrays, progress)
    return SavedRun(*saved, ends, chat_template(folder, content))


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
        ValueError: the state belongs to other parameters.
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
