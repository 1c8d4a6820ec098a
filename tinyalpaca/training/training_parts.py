"""What a training is put together from: the engine, the windows, the optimizer, the schedule."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import minigrad as mg
from minigrad import optim
from minigrad.device import device_of
from minigrad.optim.muon import Muon
from minigrad.parallel import Engine, WholeBatch, Workers
from minigrad.parallel.lanes import MICRO_KEYS
from tinyalpaca.config import ConfigError, TrainConfig
from tinyalpaca.data import RandomSampler, RandomWindows, TinyPacaDataset, WindowSampler
from tinyalpaca.evaluation import Part
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.training.micro_batches import calibrated_micro_batch

HASHED_AT_A_TIME = 2**20  # tokens, so that a large mapped file need not fit the memory


class Data(NamedTuple):
    """Tokens for training and for validation, and how many characters the latter stand for."""

    train: np.ndarray
    validation: np.ndarray
    validation_characters: int

    def fingerprint(self) -> str:
        """A hash by which a resumed run knows that it goes on with the same tokens."""
        digest = hashlib.sha256()
        for tokens in (self.train, self.validation):
            for start in range(0, len(tokens), HASHED_AT_A_TIME):
                part = tokens[start : start + HASHED_AT_A_TIME]
                digest.update(np.ascontiguousarray(part, np.int64).tobytes())
        return digest.hexdigest()


def train_loss(model: TinyAlpaca, config: TrainConfig, part: Part, key: int) -> mg.Tensor:
    """Summed loss of a micro-batch. Dropout masks depend on the seed and the key alone.

    On a GPU they are drawn there, from the number of the batch in the run.
    """
    x, y = part
    if isinstance(x, np.ndarray):
        with model.rng.seeded(config.seed, key):
            return _summed(model, config, x, y)
    number = np.array([key // MICRO_KEYS % 2**32], np.uint32)
    return device_loss(model, config)(x, y, device_of(x).asarray(number), 0)


def device_loss(model: TinyAlpaca, config: TrainConfig) -> Callable[[Any, Any, Any, int], Any]:
    """As `train_loss` for batches on a GPU, with what masks are drawn from on the GPU as well."""

    def loss(x: Any, y: Any, draw: Any, ahead: int) -> mg.Tensor:
        with model.rng.seeded_on_device(config.seed, draw, ahead):
            return _summed(model, config, x, y)

    return loss


def _summed(model: TinyAlpaca, config: TrainConfig, x: Any, y: Any) -> mg.Tensor:
    if not model.training:
        model.train()
    return model.loss(x, y, label_smoothing=config.label_smoothing, reduction="sum")


def evaluation_loss(model: TinyAlpaca, part: Part) -> mg.Tensor:
    """Summed loss of a micro-batch, without dropout or smoothing."""
    x, y = part
    if model.training:
        model.eval()
    return model.loss(x, y, reduction="sum")


def parameter_groups(model: TinyAlpaca, config: TrainConfig) -> list[dict[str, Any]]:
    """The parameters in groups with settings of their own, as optimizers take them.

    With `decay` "matrices" vectors (biases and norms) do not decay: there is nothing to be gained
    from pulling them to 0 (Loshchilov and Hutter leave it open; GPT-2 and its successors do so).
    With Muon the matrices of the decoder layers are its, packed queries, keys and values one by
    one; embeddings, the final layer and vectors stay with AdamW.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    groups: dict[str, dict[str, Any]] = {}
    for parameter in model.parameters():
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
    model: TinyAlpaca, config: TrainConfig, optimizer: optim.Optimizer | None = None
) -> Engine:
    """What computes gradients: workers on the CPU, the whole batch at once on a GPU.

    Args:
        optimizer: the parameters lie in memory in its order, and workers share its step.
    """
    parameters = model.parameters() if optimizer is None else optimizer.parameters()

    def training(part: Part, key: int) -> mg.Tensor:
        return train_loss(model, config, part, key)

    def evaluation(part: Part, key: int) -> mg.Tensor:
        return evaluation_loss(model, part)

    if parameters[0].device.kind == "gpu":
        return WholeBatch(parameters, training, evaluation, optimizer=optimizer, graph=config.graph)
    engine = Workers(
        parameters,
        training,
        evaluation,
        optimizer=optimizer,
        workers=config.workers,
        micro_batch_size=config.micro_batch_size or 1,
    )
    if not config.micro_batch_size:
        engine.micro_batch_size = calibrated_micro_batch(engine, model, config)
    return engine


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


def check_schedule(config: TrainConfig) -> None:
    """Raise `ConfigError` for a warm-up that the schedule does not have."""
    if config.schedule == "cosine-restarts" and config.warmup_steps:
        raise ConfigError(
            f"the schedule cosine-restarts has no warm-up, and warmup_steps is "
            f"{config.warmup_steps}: give --warmup-steps 0, or another --schedule"
        )


def count_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """The steps of a whole run."""
    total = steps_per_epoch * config.epochs
    return min(total, config.max_steps) if config.max_steps else total


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
        return optim.WarmupLinearLR(optimizer, warmup, total_steps, config.min_learning_rate)
    if warmup:
        return optim.WarmupConstantLR(optimizer, warmup, total_steps)
    return optim.ConstantLR(optimizer)
