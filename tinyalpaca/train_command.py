"""The command `train`: the main job."""

from __future__ import annotations

import argparse

from tinyalpaca import config
from tinyalpaca.config import ModelConfig, TrainConfig

DESCRIPTION = """Train a transformer on a text, on minigrad's own autograd.

Without arguments it learns Tiny Shakespeare in the original's setting: 10 epochs of 32 sequences of
128 tokens. Weights, tokenizer, configuration, metrics and a loss curve are written to --out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of training: one for each setting of both configurations."""
    config.add_arguments(parser, TrainConfig, "training")
    config.add_arguments(parser, ModelConfig, "model")


def run(args: argparse.Namespace) -> int:
    """Train as the flags say."""
    from tinyalpaca.training_run import run_training

    run_training(config.from_arguments(ModelConfig, args), config.from_arguments(TrainConfig, args))
    return 0
