"""The command `train`: the main job."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.console import say, warn
from tinyalpaca.presets import PRESETS
from tinyalpaca.settings import add_arguments as add_settings
from tinyalpaca.settings import given_arguments

DESCRIPTION = """Train a transformer on a text, on minigrad's own autograd.

Without arguments it learns Tiny Shakespeare in the original's setting: 10 epochs of 32 sequences of
128 tokens. Weights, tokenizer, configuration, checkpoints, metrics, a loss curve and a report are
written to --out. Ctrl-C saves and stops; --resume goes on as if nothing had happened."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of training: one for each setting of both configurations."""
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="settings to begin with: "
        + "; ".join(f"{name}: {preset.help}" for name, preset in PRESETS.items()),
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="DIR",
        help="go on with the run in this folder (default: --out), or from one of its checkpoints",
    )
    add_settings(parser, TrainConfig, "training")
    add_settings(parser, ModelConfig, "model")


def run(args: argparse.Namespace) -> int:
    """Train as the flags say. The exit status is 0, or 128 + the signal that stopped the run."""
    from tinyalpaca.training.stopping import StopRequested
    from tinyalpaca.training.texts import windows_that_follow
    from tinyalpaca.training.training_run import resume_training, run_training

    preset = PRESETS[args.preset or "seed"]
    model_flags, flags = given_arguments(ModelConfig, args), given_arguments(TrainConfig, args)
    model = {**preset.model, **model_flags}
    training = {**preset.training, **flags}
    try:
        if args.resume is None:
            lengths = {"max_seq_len": ModelConfig.max_seq_len, "seq_len": TrainConfig.seq_len}
            lengths |= preset.model | preset.training
            follow = windows_that_follow(model_flags, lengths, flags)
            if follow and not args.quiet:
                say(f"Windows: {follow['seq_len']} tokens each, because of --max-seq-len")
            training |= follow
            config = TrainConfig(**training)
            for line in without_effect(flags, config):
                warn(f"Warning: {line}")
            trainer = run_training(ModelConfig(**model), config)
        else:
            folder = args.resume or training.get("out") or TrainConfig.out
            trainer = resume_training(Path(folder), model, training)
    except StopRequested as stop:  # before there was anything to save
        warn(f"Stopped ({stop}) before training began; nothing was changed.")
        return stop.exit_status
    return trainer.stopping.exit_status if trainer.stopped else 0


def without_effect(given: Collection[str], config: TrainConfig) -> list[str]:
    """In words, the settings among those `given` that nothing looks at beside the others."""
    reasons = {
        "min_learning_rate": config.schedule == "constant" and "the schedule is constant",
        "muon_learning_rate": config.optimizer != "muon" and "the optimizer is not muon",
        "num_merges": config.tokenizer != "bpe" and f"the tokenizer is {config.tokenizer}, not bpe",
        "validation_fraction": config.validation and "--validation names a text",
        "measure_micro_batch": config.micro_batch_size and "--micro-batch-size is given",
    }
    return [
        f"--{name.replace('_', '-')} has no effect: {reason}"
        for name, reason in reasons.items()
        if reason and name in given
    ]
