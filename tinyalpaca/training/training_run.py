"""The main job from end to end: text, tokenizer, model, training, sample."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import Generator as RandomGenerator
from minigrad.device import Device, gpu_available
from minigrad.precision import check_precision, precision
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.console import Say, say, utf8_argument, warn
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.plots import plots_available
from tinyalpaca.trainer import LOSS_CURVE, METRICS, Trainer
from tinyalpaca.training.epochs import decoration, sample_text
from tinyalpaca.training.memory_need import check_memory
from tinyalpaca.training.preflight import engine_of, preflight
from tinyalpaca.training.rates import tell_rates
from tinyalpaca.training.report import REPORT, save_report
from tinyalpaca.training.resuming import (
    TEXTS,
    find_checkpoint,
    merge,
    other_versions,
    refuse_to_go_back,
    run_folder_of,
)
from tinyalpaca.training.run_folder import RunFolder
from tinyalpaca.training.stopping import Stopping, StopRequested
from tinyalpaca.training.texts import (
    fitted,
    placed,
    read_tokens,
    warn_of_positions,
    whole_path,
)
from tinyalpaca.training.training_checkpoint import SavedRun
from tinyalpaca.training.training_parts import check_schedule


def choose_device(name: str) -> Device:
    """The device that `name` asks for; "auto" takes a GPU if there is one.

    Raises:
        DeviceError: a GPU is asked for and there is none; says what to install.
    """
    if name == "auto":
        name = "gpu" if gpu_available() else "cpu"
    device = Device(name)
    _ = device.xp  # a missing CuPy or GPU is an error now, not after the tokenizer's work
    return device


def products_of(config: TrainConfig, device: Device) -> str | None:
    """The precision of matrix products that `config` asks for; None for the device's own choice.

    On the CPU it is not looked at, so that a run can go on there.

    Raises:
        PrecisionError: the GPU does not have it.
    """
    if config.precision == "auto" or device.kind == "cpu":
        return None
    check_precision(config.precision, device)
    return config.precision


def resume_training(
    folder: Path, model_given: Mapping[str, Any], given: Mapping[str, Any]
) -> Trainer:
    """Go on with the run in `folder`, or from one of its checkpoints.

    Args:
        model_given, given: settings that are given again; see `tinyalpaca.training.resuming.merge`.

    Raises:
        ConfigError, FileNotFoundError, FileFormatError: it cannot be resumed so; says why.
    """
    saved = find_checkpoint(folder, warn)
    source = run_folder_of(saved)
    given = {
        name: whole_path(value) if name in TEXTS and value else value
        for name, value in given.items()
    }
    config, changes = merge(saved, model_given, {"out": str(source), **given})
    refuse_to_go_back(saved, folder, config)
    tell = (lambda line: None) if config.quiet else say
    tell(f"Going on from {saved.folder} (step {saved.state.progress['step']:,})")
    for line in changes:
        tell(f"Changed on purpose: {line}")
    for line in other_versions(saved):
        warn(f"Warning: {line}; the last digits of losses may differ.")
    return run_training(saved.model_config, config, saved)


def run_training(
    model_config: ModelConfig, config: TrainConfig, saved: SavedRun | None = None
) -> Trainer:
    """Train as the two configurations say, print what happens, and write everything to `out`.

    Args:
        saved: the checkpoint to go on from.

    Returns:
        The trainer; its `stopped` says if it was asked to stop before its end.

    Raises:
        DeviceError, OSError, ValueError: something that is asked for cannot be had; found before
            training starts.
        FolderInUse: another run writes to the folder.
        TrainingStopped: the loss or a gradient became NaN or infinite, or the disk is full.
    """
    tell: Say = (lambda line: None) if config.quiet else say
    config = dataclasses.replace(placed(config), prompt=utf8_argument("--prompt", config.prompt))
    check_memory(with_vocabulary(model_config, config))
    device = choose_device(config.device)
    products = products_of(config, device)
    run = RunFolder(config.out)
    if saved is None:  # an old run goes on as it was
        check_schedule(config)
        run.refuse_strangers()
    with (
        device.in_use(),
        Stopping(config.max_minutes) as stopping,
        run.open(),
        precision(products),
    ):
        trainer, source = prepare(model_config, config, saved, device, run, stopping, tell)
        if config.preflight and saved is None:
            findings = preflight(trainer)
            for line in findings.lines():
                tell(line)
            for line in findings.warnings:
                warn(f"Warning: {line}")
        left = trainer.total_steps - trainer.step
        sequences = config.batch_size * config.accumulate
        tell(f"Training: {left:,} steps of {sequences} sequences")
        trainer.train()
        finish(trainer, source, tell)
    return trainer


def with_vocabulary(model: ModelConfig, config: TrainConfig) -> ModelConfig:
    """The sizes with the fewest tokens that there can be, where the text is to say how many."""
    fewest = 256 if config.tokenizer == "bpe" else 1
    return model if model.vocab_size else dataclasses.replace(model, vocab_size=fewest)


def prepare(
    model_config: ModelConfig,
    config: TrainConfig,
    saved: SavedRun | None,
    device: Device,
    run: RunFolder,
    stopping: Stopping,
    tell: Say,
) -> tuple[Trainer, str]:
    """Read the text, make tokenizer, model and trainer. Returns the trainer and where the text is
    from.
    """
    with stopping.at_once():
        data, tokenizer, source = read_tokens(config, saved, run, tell, warn)
    if saved is None:
        model_config = fitted(model_config, tokenizer, warn)
        warn_of_positions(model_config, config, warn)
    check_memory(model_config)
    model = TinyAlpaca(model_config, RandomGenerator(config.seed))
    model.to(device)
    trainer = Trainer(model, tokenizer, data, config, run, stopping=stopping)
    if saved is not None:
        trainer.load(saved)
        tell_rates(trainer, saved.training, tell, warn)
    tell(
        f"Model: {model.num_parameters():,} parameters, {model_config.num_layers} layers, on "
        f"{device} ({engine_of(trainer)})"
    )
    return trainer, source


def finish(trainer: Trainer, source: str, tell: Say) -> None:
    """Say where a run that has ended has left things, with a sample and a last validation."""
    folder, config = trainer.folder, trainer.config
    with decoration(trainer, LOSS_CURVE):
        trainer.curve.draw(trainer.step_losses, trainer.records)
    if trainer.stopped:
        with decoration(trainer, REPORT):
            save_report(trainer, source=source)
        say(
            f"Stopped at step {trainer.step:,} of {trainer.total_steps:,} ({trainer.stopped}). "
            f"Everything is saved in {folder}; go on with\n    {resume_command(folder)}"
        )
        return
    trainer.use_best()
    best = trainer.records[(trainer.best or {"record": -1})["record"]]["val_nats_per_char"]
    sliding, how = 0.0, ""
    try:
        if config.eval_stride:
            with np.errstate(all="ignore"):
                sliding = trainer.validate(config.eval_stride).nats_per_character
            how = f"; {sliding:.4f} with windows that move on by {config.eval_stride} tokens"
        text = sample_text(trainer, config.sample_tokens)
    except StopRequested:
        text = ""
    finally:
        trainer.engine.close()
    if text:
        tell(f"\nSample:\n{text}\n")
    with decoration(trainer, REPORT):
        save_report(trainer, source=source, sample=text, score=sliding)
    say(f"Best validation: {best:.4f} nats per character{how}")
    tell(f"In {folder}: model.safetensors, config.json, tokenizer.json, {METRICS}, {REPORT}")
    if plots_available():
        tell(f"Loss curve: {folder / LOSS_CURVE}")
    else:
        tell('No loss curve: it needs matplotlib, pip install -e ".[plots]"')


def resume_command(folder: Path) -> str:
    """The command that goes on with a run, as this one was called."""
    program = Path(sys.argv[0])
    if program.suffix == ".py" and program.name != "__main__.py":
        return shlex.join(["python", str(program), "--resume", str(folder)])
    return shlex.join(["tinyalpaca", "train", "--resume", str(folder)])
