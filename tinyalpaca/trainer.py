"""The training loop: epochs of steps, a validation after each, a line and a record for it."""

from __future__ import annotations

import json
import sys
import time
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

import minigrad as mg
from minigrad import optim
from minigrad.parallel import WholeBatch, Workers
from tinyalpaca.checkpoint import save_model
from tinyalpaca.config import TrainConfig
from tinyalpaca.data import RandomSampler, RandomWindows, TinyPacaDataset, WindowSampler
from tinyalpaca.evaluation import Part, Score, evaluate
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.plots import plots_available, save_loss_curve
from tinyalpaca.tokenizer_base import Tokenizer

METRICS, LOSS_CURVE = "metrics.jsonl", "loss.png"
MICRO_BATCH_TOKENS = 512  # activations of so many tokens stay in a core's cache


class TrainingStopped(RuntimeError):
    """Training cannot go on. The message says where and why; the last good weights are saved."""


class Data(NamedTuple):
    """Tokens for training and for validation, and how many characters the latter stand for."""

    train: np.ndarray
    validation: np.ndarray
    validation_characters: int


class Trainer:
    """Trains a model and writes what came of it into a folder.

    Args:
        model: moved to its device already.
        tokenizer: saved beside the weights.
        data: the tokens.
        config: the settings.
        folder: an existing folder for weights, configuration, tokenizer, metrics and loss curve.

    Raises:
        ValueError: the training sequences are longer than the data or than the model allows.
    """

    def __init__(
        self,
        model: TinyAlpaca,
        tokenizer: Tokenizer,
        data: Data,
        config: TrainConfig,
        folder: Path,
    ) -> None:
        if config.seq_len - 1 > model.config.max_seq_len:
            raise ValueError(
                f"training windows of {config.seq_len} tokens predict {config.seq_len - 1}, more "
                f"than the model's max_seq_len ({model.config.max_seq_len})"
            )
        self.model, self.tokenizer, self.data = model, tokenizer, data
        self.config, self.folder = config, folder
        self.dataset, self.sampler = make_sampler(data.train, config)
        self.engine = make_engine(model, config)
        self.optimizer = optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )
        self.total_steps = len(self.sampler) * config.epochs
        if config.max_steps:
            self.total_steps = min(self.total_steps, config.max_steps)
        self.schedule = make_schedule(self.optimizer, config, len(self.sampler), self.total_steps)
        self.step = 0
        self.step_losses: list[tuple[int, float]] = []
        self.records: list[dict[str, Any]] = []

    def train(self) -> list[dict[str, Any]]:
        """All epochs. Returns their records, which `metrics.jsonl` holds as well.

        Raises:
            TrainingStopped: a loss or gradient is not finite.
        """
        (self.folder / METRICS).write_text("", encoding="utf-8")
        try:
            while self.step < self.total_steps:
                self.train_epoch()
        finally:
            self.engine.close()
        return self.records

    def train_epoch(self) -> None:
        """One pass over the training data, a validation, a line, a record, and the weights."""
        began, first_step = time.perf_counter(), self.step
        steps = min(len(self.sampler), self.total_steps - self.step)
        number = len(self.records) + 1
        grad_norm, tokens = 0.0, 0
        bar = tqdm(
            total=steps,
            desc=f"Epoch {number}/{self.config.epochs}",
            unit="step",
            dynamic_ncols=True,
            mininterval=0.25,
            leave=False,
            file=sys.stderr,
        )
        with bar:
            for indices in self.sampler:
                x, y = self.dataset.batch_at(indices)
                loss, grad_norm = self.train_step(x, y)
                tokens += y.size
                rate = tokens / (time.perf_counter() - began)
                bar.set_postfix_str(f"loss {loss:.4f}, {rate:,.0f} tokens/s", refresh=False)
                bar.update()
                if self.step >= self.total_steps:
                    break
        trained = time.perf_counter()
        score = self.validate()
        losses = [loss for _, loss in self.step_losses[first_step:]]
        self.report(
            {
                "epoch": number,
                "step": self.step,
                "train_loss": sum(losses) / len(losses),
                "val_loss": score.nats_per_token,
                "val_nats_per_char": score.nats_per_character,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "grad_norm": grad_norm,
                "tokens_per_second": tokens / (trained - began),
                "seconds": time.perf_counter() - began,
            }
        )

    def train_step(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """One update of the weights from a batch (B, T). Returns loss and gradient norm.

        Raises:
            TrainingStopped: the loss or a gradient is not finite; the weights are unchanged.
        """
        loss = self.engine.gradients((x, y), scale=1 / y.size, key=self.step)
        limit = self.config.grad_clip or float("inf")
        grad_norm = optim.clip_grad_norm_(self.model.parameters(), limit)
        if not (isfinite(loss) and isfinite(grad_norm)):
            self.stop_at_bad_step((x, y), loss, grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self.step_losses.append((self.step, loss))
        return loss, grad_norm

    def stop_at_bad_step(self, part: Part, loss: float, grad_norm: float) -> None:
        """Save the last good weights, find where the NaN or Inf comes from, and stop."""
        save_model(self.folder, self.model, self.tokenizer, self.config)
        where = "A second pass over the step did not show it again."
        with mg.detect_nan():
            try:
                self.train_loss(part, self.step * 2**20).backward()
            except mg.NonFiniteError as error:
                where = str(error)
        raise TrainingStopped(
            f"step {self.step + 1}: loss {loss}, gradient norm {grad_norm}. {where}\n"
            f"The weights of step {self.step} are in {self.folder}. A lower --learning-rate or a "
            "--grad-clip usually helps."
        )

    def train_loss(self, part: Part, key: int) -> mg.Tensor:
        """Summed loss of a micro-batch, with dropout masks that its key determines."""
        return train_loss(self.model, self.config, part, key)

    def validate(self) -> Score:
        """Score of the validation text, each token but the first predicted once."""
        return evaluate(
            self.engine.evaluate,
            self.data.validation,
            self.data.validation_characters,
            seq_len=self.config.seq_len,
            batch_size=self.config.batch_size,
        )

    def report(self, record: dict[str, Any]) -> None:
        """Print the epoch's line, append its record, save the weights and redraw the curve."""
        self.records.append(record)
        tqdm.write(
            f"Epoch [{record['epoch']}/{self.config.epochs}] | "
            f"Train Loss: {record['train_loss']:.4f} | Val Loss: {record['val_loss']:.4f} | "
            f"LR: {record['learning_rate']:.2e} | "
            f"{record['val_nats_per_char']:.4f} nats/char | "
            f"{record['tokens_per_second']:,.0f} tokens/s | {record['seconds']:.1f} s"
        )
        with open(self.folder / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        save_model(self.folder, self.model, self.tokenizer, self.config)
        if plots_available():
            save_loss_curve(self.folder / LOSS_CURVE, self.step_losses, self.records)


def train_loss(model: TinyAlpaca, config: TrainConfig, part: Part, key: int) -> mg.Tensor:
    """Summed loss of a micro-batch. Dropout masks depend on the seed and the key alone."""
    x, y = part
    model.train()
    with model.rng.seeded(config.seed, key):
        return model.loss(x, y, label_smoothing=config.label_smoothing, reduction="sum")


def evaluation_loss(model: TinyAlpaca, part: Part) -> mg.Tensor:
    """Summed loss of a micro-batch, without dropout or smoothing."""
    x, y = part
    model.eval()
    return model.loss(x, y, reduction="sum")


def make_engine(model: TinyAlpaca, config: TrainConfig) -> Workers | WholeBatch:
    """What computes gradients: workers on the CPU, the whole batch at once on a GPU."""
    parameters = model.parameters()

    def training(part: Part, key: int) -> mg.Tensor:
        return train_loss(model, config, part, key)

    def evaluation(part: Part, key: int) -> mg.Tensor:
        return evaluation_loss(model, part)

    if parameters[0].device.kind == "gpu":
        return WholeBatch(parameters, training, evaluation)
    micro = config.micro_batch_size or max(1, MICRO_BATCH_TOKENS // (config.seq_len - 1))
    return Workers(parameters, training, evaluation, workers=config.workers, micro_batch_size=micro)


def make_sampler(
    tokens: np.ndarray, config: TrainConfig
) -> tuple[TinyPacaDataset | RandomWindows, WindowSampler | RandomSampler]:
    """The windows of the training tokens and the order in which they come."""
    consecutive = TinyPacaDataset(tokens, config.seq_len)
    if config.windows == "consecutive":
        count = len(consecutive)
        return consecutive, WindowSampler(count, min(config.batch_size, count), seed=config.seed)
    windows = RandomWindows(tokens, config.seq_len)
    return windows, RandomSampler(
        len(windows), config.batch_size, samples_per_epoch=len(consecutive), seed=config.seed
    )


def make_schedule(
    optimizer: optim.Optimizer, config: TrainConfig, steps_per_epoch: int, total_steps: int
) -> optim.Schedule:
    """The learning rate by step."""
    if config.schedule == "cosine-restarts":
        return optim.CosineAnnealingWarmRestarts(
            optimizer, steps_per_epoch, eta_min=config.min_learning_rate
        )
    warmup = min(config.warmup_steps, total_steps)
    if config.schedule == "cosine":
        return optim.WarmupCosineLR(optimizer, warmup, total_steps, config.min_learning_rate)
    if warmup:
        return optim.WarmupCosineLR(optimizer, warmup, total_steps, config.learning_rate)
    return optim.ConstantLR(optimizer)
