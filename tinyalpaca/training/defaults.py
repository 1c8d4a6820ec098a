"""The parts of a task as the settings say, for those that a user does not bring."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from minigrad import nn, optim
from minigrad.optim.muon import Muon
from minigrad.parallel import Engine, WholeBatch, Workers, mpi
from tinyalpaca.config import ConfigError, TrainConfig
from tinyalpaca.data import (
    RandomSampler,
    RandomWindows,
    ShiftedSampler,
    TinyPacaDataset,
    WindowSampler,
)
from tinyalpaca.training.loss import Loss
from tinyalpaca.training.micro_batches import calibrated_micro_batch, micro_batch_size

Sampler = WindowSampler | RandomSampler | ShiftedSampler


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """The parameters in groups with settings of their own, as optimizers take them.

    Those that are frozen (`requires_grad` is False) are left out.

    With `decay` "matrices", vectors (biases and norms) do not decay, since pulling them to 0 brings
    nothing (Loshchilov and Hutter leave it open; GPT-2 and its successors do so). Muon updates the
    matrices of the decoder layers, with packed queries, keys and values one by one. AdamW updates
    embeddings, the final layer and vectors.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    groups: dict[str, dict[str, Any]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        name, vector = names[id(parameter)], parameter.ndim < 2
        kind, settings = "all", {"weight_decay": config.weight_decay}
        if vector and config.decay == "matrices":
            kind, settings = "vectors", {"weight_decay": 0.0}
        elif config.optimizer == "muon" and not vector and name.startswith("decoder_layers."):
            packed = name.endswith("qkv_proj.weight")
            kind = "muon, packed" if packed else "muon"
            settings |= {"lr": config.muon_learning_rate, "orthogonal": True}
            settings |= {"parts": 3 if packed else 1}
        groups.setdefault(kind, {"params": [], **settings})["params"].append(parameter)
    return list(groups.values())


def make_optimizer(groups: list[dict[str, Any]], config: TrainConfig) -> optim.Optimizer:
    """AdamW, or Muon with AdamW, over these groups."""
    kind = Muon if config.optimizer == "muon" else optim.AdamW
    return kind(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )


def make_engine(
    model: Any,
    config: TrainConfig,
    optimizer: optim.Optimizer | None = None,
    loss: Loss | None = None,
    ranks: mpi.Ranks | None = None,
) -> Engine:
    """The engine that computes gradients: workers on the CPU, the whole batch on a GPU.

    Args:
        optimizer: its order is that of the parameters in memory, and workers share its step.
        loss: cross-entropy if left out.
        ranks: the processes that share each batch; None for this one alone.
    """
    parameters = model.parameters() if optimizer is None else optimizer.parameters()
    loss = loss or Loss(model, config)
    losses = (loss.training, loss.evaluation)
    if ranks is not None:
        assert optimizer is not None
        return shared_engine(model, config, optimizer, loss, ranks)
    if parameters[0].device.kind == "gpu":
        return WholeBatch(parameters, *losses, optimizer=optimizer, graph=config.graph)
    engine = Workers(
        parameters,
        *losses,
        optimizer=optimizer,
        workers=config.workers,
        micro_batch_size=config.micro_batch_size or 1,
    )
    if not config.micro_batch_size:
        engine.micro_batch_size = calibrated_micro_batch(engine, model, config)
    return engine


def shared_engine(
    model: Any,
    config: TrainConfig,
    optimizer: optim.Optimizer,
    loss: Loss,
    ranks: mpi.Ranks,
) -> Engine:
    """The engine of several processes.

    With dropout the ranks compute whole micro-batches of the size that a single process would use,
    because masks are drawn for each micro-batch. Otherwise the size depends on a rank's share.
    """
    whole = getattr(model.config, "dropout", 1.0) > 0
    size = config.micro_batch_size
    if not size:
        share = config.batch_size if whole else config.batch_size // ranks.size
        size = micro_batch_size(model.config, share, config.seq_len - 1)
    return mpi.DataParallel(
        *(optimizer.parameters(), optimizer, loss.training, loss.evaluation),
        ranks=ranks,
        workers=config.workers,
        micro_batch_size=size,
        whole_micro_batches=whole,
        shard_optimizer=config.shard_optimizer,
        wire=config.gradient_wire,
        graph=config.graph,
    )


def make_sampler(
    tokens: np.ndarray, config: TrainConfig
) -> tuple[TinyPacaDataset | RandomWindows, Sampler]:
    """The windows of the training tokens and the order in which they come."""
    consecutive = TinyPacaDataset(tokens, config.seq_len)
    if config.windows == "consecutive":
        count = len(consecutive)
        return consecutive, WindowSampler(count, min(config.batch_size, count), seed=config.seed)
    windows = RandomWindows(tokens, config.seq_len)
    if config.windows == "shifted":
        stride = config.seq_len - 1  # tokens that a window predicts
        return windows, ShiftedSampler(len(windows), config.batch_size, stride, seed=config.seed)
    return windows, RandomSampler(
        len(windows), config.batch_size, samples_per_epoch=len(consecutive), seed=config.seed
    )


def epoch_steps(sampler: Sampler, config: TrainConfig) -> int:
    """The steps of an epoch."""
    return ceil(len(sampler) / config.accumulate)


def count_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """The steps of a whole run."""
    total = steps_per_epoch * config.epochs
    return min(total, config.max_steps) if config.max_steps else total


def check_schedule(config: TrainConfig) -> None:
    """Raise `ConfigError` for a warm-up with a schedule that has none."""
    if config.schedule == "cosine-restarts" and config.warmup_steps:
        raise ConfigError(
            f"the schedule cosine-restarts has no warm-up, and warmup_steps is "
            f"{config.warmup_steps}: give --warmup-steps 0, or another --schedule"
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
    if config.schedule == "linear":
        return optim.WarmupLinearLR(
            optimizer, warmup, total_steps, config.min_learning_rate, config.cooldown
        )
    if warmup:
        return optim.WarmupConstantLR(optimizer, warmup, total_steps)
    return optim.ConstantLR(optimizer)
