"""The command `train`: the main job."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from minigrad.parallel import mpi
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.console import muted, say, warn
from tinyalpaca.presets import DEFAULT, PRESETS, preset_named
from tinyalpaca.settings import add_arguments as add_settings
from tinyalpaca.settings import given_arguments, read_settings

# Settings beside which a run is still the default one.
SAME_RUN = {"out", "device", "workers", "keep", "save_every", "save_minutes", "log_every"}
BETTER = (
    "In one and a half times the time, --preset best gives 1.44 nats per character from the same "
    "size instead of 1.87."
)
DESCRIPTION = """Train a transformer on a text, on minigrad's own autograd.

Without arguments it learns Tiny Shakespeare in the original's setting: 10 epochs of 32 sequences of
128 tokens. Weights, tokenizer, configuration, checkpoints, metrics, a loss curve and a report are
written to --out. Ctrl-C saves and stops; --resume goes on as if nothing had happened."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of training: one for each setting of both configurations."""
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="DIR",
        help="resume the run in this folder (default: --out), or from one of its checkpoints",
    )
    add_settings_flags(parser)


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that name settings: a preset, a file, and one for each."""
    parser.add_argument(
        "--preset",
        type=preset_named,
        choices=PRESETS,
        help="settings to begin with: "
        + "; ".join(f"{name}: {preset.help}" for name, preset in PRESETS.items()),
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="more settings: TOML with tables [model] and [training], or the config.json of a run; "
        "flags given beside it take precedence",
    )
    add_settings(parser, TrainConfig, "training")
    add_settings(parser, ModelConfig, "model")


def run(args: argparse.Namespace) -> int:
    """Train as the flags say. The exit status is 0, or 128 + the signal that stopped the run."""
    with contextlib.ExitStack() as streams:
        if mpi.place().rank and (args.distributed or args.resume is not None):
            streams.enter_context(muted())  # rank 0 says the same
        return train(args)


def train(args: argparse.Namespace) -> int:
    """As `run`, whichever rank prints."""
    from tinyalpaca.training.fine_tuning import sizes_of
    from tinyalpaca.training.job import resume_training, run_training
    from tinyalpaca.training.stopping import StopRequested
    from tinyalpaca.training.texts import windows_that_follow

    name, model_flags, flags = settings_given(args)
    preset = PRESETS[name]
    model = {**preset.model, **model_flags}
    training = {**preset.training, **flags}
    try:
        if args.resume is None:
            lengths = {"max_seq_len": ModelConfig.max_seq_len, "seq_len": TrainConfig.seq_len}
            lengths |= preset.model | preset.training
            follow = windows_that_follow(model_flags, lengths, flags)
            if training.get("init_from"):
                # The model is taken as it is, and windows are no longer than it takes them.
                preset_only = preset.model.keys() - model_flags.keys()
                model = {k: v for k, v in model.items() if k not in preset_only}
                longest = sizes_of(training["init_from"], model).max_seq_len + 1
                follow = {"seq_len": min(lengths["seq_len"], longest)}
                follow = {} if "seq_len" in flags else follow
            elif follow and not args.quiet:
                say(f"Windows: {follow['seq_len']} tokens each, because of --max-seq-len")
            training |= follow
            config = TrainConfig(**training)
            warn_of_launcher(config)
            # A run's config.json gives all settings, most of them as they are by default.
            said = given_arguments(TrainConfig, args).keys()
            spoken = [n for n, v in flags.items() if n in said or v != getattr(TrainConfig, n)]
            for line in without_effect(spoken, config):
                warn(f"Warning: {line}")
            trained = run_training(ModelConfig(**model), config)
        else:
            folder = args.resume or training.get("out") or TrainConfig.out
            trained = resume_training(Path(folder), model, training)
    except StopRequested as stop:  # before there was anything to save
        warn(f"Stopped ({stop}) before training began; nothing was changed.")
        return stop.exit_status
    if trained.stopped:
        return trained.stopping.exit_status
    default = not (args.preset or args.config or model or args.resume is not None)
    if default and training.keys() <= SAME_RUN:
        say(BETTER)
    return 0


def warn_of_launcher(config: TrainConfig) -> None:
    """Warn if a launcher has started several processes without --distributed."""
    place = mpi.place()
    if place.size > 1 and not config.distributed and place.rank == 0:
        warn(
            f"Warning: {place.launcher} has started {place.size} of these commands, and each "
            "trains a model of its own: --distributed lets them train one together"
        )


def settings_given(args: argparse.Namespace) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The preset's name, and the settings of model and training that a file and flags give.

    Raises:
        ConfigError: the file has an unknown setting.
    """
    name, model, training = args.preset, {}, {}
    if args.config is not None:
        found = read_settings(args.config, model=ModelConfig, training=TrainConfig)
        model, training, above = found["model"], found["training"], found[""]
        named = above.pop("preset", None)
        name = name or (preset_named(named) if isinstance(named, str) else named)
        if above or name not in (None, *PRESETS):
            homes = {"model": ModelConfig, "training": TrainConfig}
            home = [f"[{t}]" for t, cls in homes.items() if above and hasattr(cls, min(above))]
            raise ConfigError(
                f"{args.config} has tables [model] and [training], and above them preset, one of "
                f"{', '.join(PRESETS)}; not {above or name!r}"
                + (f". {min(above)} belongs into {home[0]}" if home else "")
            )
    model |= given_arguments(ModelConfig, args)
    training |= given_arguments(TrainConfig, args)
    return name or DEFAULT, model, training


def without_effect(given: Collection[str], config: TrainConfig) -> list[str]:
    """In words, those of the `given` settings that have no effect beside the others."""
    reasons = {
        "min_learning_rate": config.schedule == "constant" and "the schedule is constant",
        "cooldown": config.schedule != "linear"
        and f"the schedule is {config.schedule}, not linear",
        "muon_learning_rate": config.optimizer != "muon" and "the optimizer is not muon",
        "num_merges": config.tokenizer != "bpe" and f"the tokenizer is {config.tokenizer}, not bpe",
        "validation_fraction": config.validation and "--validation names a text",
        "shard_optimizer": not config.distributed and "--distributed is not given",
        "rank_timeout": not config.distributed and "--distributed is not given",
        "gradient_wire": not config.distributed and "--distributed is not given",
        "measure_micro_batch": config.micro_batch_size and "--micro-batch-size is given",
    }
    return [
        f"--{name.replace('_', '-')} has no effect: {reason}"
        for name, reason in reasons.items()
        if reason and name in given
    ]
