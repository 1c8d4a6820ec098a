"""The main job from end to end: text, tokenizer, model, training, sample."""

from __future__ import annotations

import dataclasses
import sys

from minigrad import Generator as RandomGenerator
from minigrad.device import Device, gpu_available
from minigrad.parallel import Workers
from tinyalpaca.checkpoint import prepare_folder, save_model
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.data import load_corpus, split_text
from tinyalpaca.generation import Generator
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.plots import plots_available
from tinyalpaca.tokenizer import BPETokenizer
from tinyalpaca.trainer import LOSS_CURVE, METRICS, Data, Trainer


def say(line: str = "") -> None:
    """Print a line at once, in a pipe too."""
    print(line, flush=True)


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


def run_training(model_config: ModelConfig, config: TrainConfig) -> Trainer:
    """Train as the two configurations say, print what happens, and write everything to `out`.

    Raises:
        DeviceError, OSError, ValueError: something that is asked for cannot be had; found before
            training starts.
        TrainingStopped: the loss or a gradient became NaN or infinite.
    """
    device = choose_device(config.device)
    folder = prepare_folder(config.out)
    corpus = load_corpus(config.data)
    text = corpus.text
    training_text, validation_text = split_text(text, config.validation_fraction)
    say(f"Text: {corpus.source} ({len(text):,} characters)")

    tokenizer = BPETokenizer.train(training_text, num_merges=config.num_merges)
    data = Data(
        tokenizer.encode_array(training_text),
        tokenizer.encode_array(validation_text),
        len(validation_text),
    )
    say(
        f"Tokens: {len(data.train):,} for training, {len(data.validation):,} for validation, "
        f"{tokenizer.vocab_size} different ones, "
        f"{len(text) / (len(data.train) + len(data.validation)):.2f} characters each"
    )

    sizes = dataclasses.replace(model_config, vocab_size=tokenizer.vocab_size)
    model = TinyAlpaca(sizes, RandomGenerator(config.seed))
    model.to(device)
    trainer = Trainer(model, tokenizer, data, config, folder)
    workers = (
        f"{trainer.engine.workers} worker(s), {trainer.engine.micro_batch_size} sequences at a time"
        if isinstance(trainer.engine, Workers)
        else "whole batches"
    )
    say(
        f"Model: {model.num_parameters():,} parameters, {sizes.num_layers} layers, on {device} "
        f"({workers})"
    )
    say(f"Training: {trainer.total_steps:,} steps of {config.batch_size} sequences")
    try:
        trainer.train()
    except KeyboardInterrupt:
        save_model(folder, model, tokenizer, config)
        say(f"\nStopped at step {trainer.step}; its weights are in {folder}")
        sys.exit(130)

    if config.sample_tokens:
        text = Generator(model.eval(), tokenizer).generate(
            config.prompt, config.sample_tokens, seed=config.seed
        )
        say(f"\nSample:\n{config.prompt}{text}\n")
    say(f"In {folder}: model.safetensors, config.json, tokenizer.json, {METRICS}")
    if plots_available():
        say(f"Loss curve: {folder / LOSS_CURVE}")
    else:
        say('No loss curve: it needs matplotlib, pip install "minigrad[plots]"')
    return trainer
