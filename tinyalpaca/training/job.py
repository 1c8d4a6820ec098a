"""The main job from end to end: text, tokenizer, model, a run, and what is printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigrad import Generator as RandomGenerator
from minigrad import nn
from minigrad.device import Device, choose_device
from minigrad.parallel import mpi
from minigrad.precision import check_precision, precision
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.console import Say, say, utf8_argument, warn
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs import RunFolder
from tinyalpaca.runs.checkpoint import add_to_base
from tinyalpaca.training.checkpoint import SavedRun
from tinyalpaca.training.defaults import check_schedule
from tinyalpaca.training.fine_tuning import add_lora, sizes_of, take_manners, take_weights
from tinyalpaca.training.hooks import Hook
from tinyalpaca.training.loss import LossFunction
from tinyalpaca.training.memory_need import check_memory
from tinyalpaca.training.resuming import (
    PATHS,
    find_checkpoint,
    given_again,
    merge,
    other_versions,
    refuse_to_go_back,
    run_folder_of,
    tell_rates,
)
from tinyalpaca.training.run import Run
from tinyalpaca.training.stopping import Stopping
from tinyalpaca.training.task import GIVEN, OURS, Data, MakeOptimizer, MakeSchedule, Own
from tinyalpaca.training.texts import (
    Texts,
    fitted,
    placed,
    read_tokens,
    warn_of_positions,
    whole_path,
)
from tinyalpaca.training.together import ElsewhereFolder, StoppingTogether, together
from tinyalpaca.training.told import describe_engine, finish


def precision_of(config: TrainConfig, device: Device) -> str | None:
    """The precision of matmuls that `config` asks for; None for the device's own choice.

    On the CPU it is ignored, so that a run can be resumed there.

    Raises:
        PrecisionError: the GPU does not have it.
    """
    if config.precision == "auto" or device.kind == "cpu":
        return None
    check_precision(config.precision, device)
    return config.precision


def train(
    config: TrainConfig,
    model_config: Any = None,
    *,
    model: Any = TinyAlpaca,
    loss: LossFunction | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: MakeSchedule | None = None,
    data: Data | None = None,
    tokenizer: Any = None,
    hooks: Sequence[Hook] = (),
    resume: bool = False,
) -> Run:
    """Train a model from Python, optionally with parts of your own.

    Args:
        config: the settings; those that a part of your own does not read have no effect.
        model_config: the model's sizes; a `ModelConfig`, or what your own class takes.
        model: makes the model from these and a `minigrad.Generator`, as a class does. It maps ids
            (B, T) to logits (B, T, V). It has an attribute `config`, with a `vocab_size` and a
            `max_seq_len`, and with dropout the generator as `rng`. If its settings are no
            `ModelConfig`, it names their class as `config_class`.
        loss: maps the model, inputs and targets (B, T) to the *sum* of their losses: a function,
            or an object that is called so.
        optimizer: makes one from groups of parameters.
        schedule: makes one from the optimizer and the number of steps of the run.
        data, tokenizer: tokens and what made them, instead of the text that `config.data` names.
        hooks: more of them; see `tinyalpaca.training.hooks`.
        resume: resume the run in `config.out`; give the same parts again.

    Returns:
        The run: its `model` has the best weights, its `records` are the results of validations,
        and `stopped` is the reason if it was stopped before the end.

    Raises:
        TypeError: a part is not what it should be.
        ValueError, OSError: a setting is wrong, a file is missing, or the run cannot be resumed.
        TrainingStopped: the loss or a gradient became NaN or infinite, or the disk is full.
    """
    if not isinstance(config, TrainConfig):
        raise TypeError(
            f"train() is given a TrainConfig first, not a {type(config).__name__}: "
            "train(TrainConfig(data='my_book.txt'), ModelConfig(d_model=32))"
        )
    if loss is not None and not callable(loss):
        raise TypeError(
            f"loss must be a function of the model, inputs and targets, not a {type(loss).__name__}"
        )
    made = {"model": model, "optimizer": optimizer, "schedule": schedule}
    for name, make in made.items():
        if make is not None and (isinstance(make, nn.Module) or not callable(make)):
            raise TypeError(
                f"{name} must be a class or a function, which train() calls to make one, not a "
                f"{type(make).__name__} that is made already"
            )
    if model is TinyAlpaca and not isinstance(model_config, ModelConfig | None):
        raise TypeError(
            f"the model's sizes are a ModelConfig(d_model=32), not a {type(model_config).__name__}"
        )
    if isinstance(hooks, Hook):
        raise TypeError(f"hooks come in a list: hooks=[{type(hooks).__name__}(...)]")
    for hook in hooks:
        if not isinstance(hook, Hook):
            raise TypeError(
                f"a hook is an object of a class made from tinyalpaca.Hook, not a "
                f"{type(hook).__name__}"
            )
    own = Own(model, loss, optimizer, schedule, data, tokenizer)
    if data is not None:
        if tokenizer is None:
            raise ConfigError("data are tokens: give the tokenizer that made them as well")
        config = dataclasses.replace(config, data=GIVEN, validation="")
    if not resume:
        return run_training(model_config or ModelConfig(), config, own=own, hooks=hooks)
    sizes = {} if model_config is None else dataclasses.asdict(model_config)
    sizes = {name: value for name, value in sizes.items() if name != "vocab_size" or value}
    return resume_training(Path(config.out), sizes, given_again(config), own, hooks)


def resume_training(
    folder: Path,
    model_given: Mapping[str, Any],
    given: Mapping[str, Any],
    own: Own = OURS,
    hooks: Sequence[Hook] = (),
    texts: Texts | None = None,
) -> Run:
    """Resume the run in `folder`, or from one of its checkpoints.

    Args:
        model_given, given: settings that are given again; see `tinyalpaca.training.resuming.merge`.
        own, hooks: the user's own parts and hooks.
        texts: what reading the text gives, if it has been read.

    Raises:
        ConfigError, FileNotFoundError, FileFormatError: it cannot be resumed so; says why.
    """
    saved = find_checkpoint(folder, warn, own.model)
    source = run_folder_of(saved)
    given = {
        name: whole_path(value) if name in PATHS and value else value
        for name, value in given.items()
    }
    config, changes = merge(saved, model_given, {"out": str(source), **given})
    refuse_to_go_back(saved, folder, config)
    tell = (lambda line: None) if config.quiet else say
    tell(f"Resuming from {saved.folder} (step {saved.progress['step']:,})")
    for line in changes:
        tell(f"Changed on purpose: {line}")
    for line in other_versions(saved):
        warn(f"Warning: {line}; the last digits of losses may differ.")
    return run_training(saved.model_config, config, saved, own, hooks, texts)


def run_training(
    model_config: Any,
    config: TrainConfig,
    saved: SavedRun | None = None,
    own: Own = OURS,
    hooks: Sequence[Hook] = (),
    texts: Texts | None = None,
) -> Run:
    """Train as the two configurations say, print what happens, and write everything to `out`.

    Args:
        saved: the checkpoint to resume from.
        own, hooks: the user's own parts and hooks.
        texts: what reading the text gives, if it has been read.

    Returns:
        The run; its `stopped` says if it was asked to stop before its end.

    Raises:
        DeviceError, OSError, ValueError: a device or file is missing, or a setting is wrong; found
            before training starts.
        FolderInUse: another run writes to the folder.
        TrainingStopped: the loss or a gradient became NaN or infinite, or the disk is full.
    """
    config = dataclasses.replace(placed(config), prompt=utf8_argument("--prompt", config.prompt))
    if config.init_from and saved is None:
        source = Path(config.init_from).resolve()
        if Path(config.out).resolve() in (source, *source.parents):
            raise ConfigError(f"{config.init_from} is in --out itself: choose another folder")
        fields = {f.name: f.default for f in dataclasses.fields(model_config)}
        given = {k: v for k, v in vars(model_config).items() if v != fields[k]}
        model_config = sizes_of(config.init_from, given, own.model)
        config = dataclasses.replace(config, tokenizer=config.init_from)
    if own.model is TinyAlpaca:
        check_memory(with_vocabulary(model_config, config))
    with together(config) as ranks:
        return run_rank(model_config, config, saved, own, hooks, texts, ranks)


def run_rank(
    model_config: Any,
    config: TrainConfig,
    saved: SavedRun | None,
    own: Own,
    hooks: Sequence[Hook],
    texts: Texts | None,
    ranks: mpi.Ranks | None,
) -> Run:
    """What `run_training` does in each of several processes, or in this one alone."""
    first = ranks is None or ranks.rank == 0
    config = config if first else dataclasses.replace(config, quiet=True)
    tell: Say = (lambda line: None) if config.quiet else say
    device = device_of_rank(choose_device(config.device), ranks)
    asked = precision_of(config, device)
    folder = RunFolder(config.out) if first else ElsewhereFolder()
    if saved is None:  # an older run is resumed as it was
        check_schedule(config)
        folder.refuse_strangers()
    with (
        device.in_use(),
        (StoppingTogether if ranks else Stopping)(config.max_minutes) as stopping,
        folder.open(),
        precision(asked),
    ):
        if own.data is not None:
            texts = own.data, own.tokenizer, GIVEN
        if texts is None:
            with stopping.at_once():
                texts = read_tokens(config, saved, folder, tell, warn)
        more: dict[str, Any] = {"stopping": stopping, "own": own, "hooks": hooks, "ranks": ranks}
        run = prepare(model_config, config, saved, device, folder, tell, texts, **more)
        run.train()
        if first:
            finish(run, tell)
        if ranks is not None:
            ranks.part()  # the others wait until rank 0 has done everything
    return run


def device_of_rank(device: Device, ranks: mpi.Ranks | None) -> Device:
    """The GPU of a rank: each of a host's ranks has its own, as long as there are enough."""
    if ranks is None or device.kind == "cpu":
        return device
    count = device.xp.cuda.runtime.getDeviceCount()
    place = ranks.place
    if place.local_size > count:
        warn(f"Warning: {place.local_size} ranks share the {count} GPU(s) of their host")
    return Device(device.kind, place.local_rank % count)


def with_vocabulary(model: ModelConfig, config: TrainConfig) -> ModelConfig:
    """The sizes with the smallest possible vocabulary, if the text is to decide about it."""
    fewest = 256 if config.tokenizer == "bpe" else 1
    return model if model.vocab_size else dataclasses.replace(model, vocab_size=fewest)


def prepare(
    model_config: Any,
    config: TrainConfig,
    saved: SavedRun | None,
    device: Device,
    folder: RunFolder,
    tell: Say,
    texts: Texts,
    own: Own = OURS,
    **more: Any,
) -> Run:
    """Make the model, and a run of it; `more` is for that."""
    data, tokenizer, source = texts
    if saved is None:
        model_config = fitted(model_config, tokenizer, warn)
        warn_of_positions(model_config, config, warn)
    if own.model is TinyAlpaca:
        check_memory(model_config)
    model = own.model(model_config, RandomGenerator(config.seed))
    if saved is not None:
        take_manners(model, saved)
    if saved is not None and saved.lora is not None:
        add_to_base(model, saved.lora)
    elif config.init_from and saved is None:
        take_weights(model, config.init_from)
        tell(f"Weights: from {config.init_from}")
        if config.lora_rank:
            add_lora(model, config)
    model.to(device)
    run = Run(model, tokenizer, data, config, folder, source=source, saved=saved, own=own, **more)
    if saved is not None:
        tell_rates(run.task, run.state.step, config, saved.training, tell, warn)
    tell(
        f"Model: {model.num_parameters():,} parameters, "
        + (f"{model_config.num_layers} layers, " if hasattr(model_config, "num_layers") else "")
        + f"on {device} ({describe_engine(run)})"
    )
    return run
