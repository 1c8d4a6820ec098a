"""The models that are timed, and minigrad's contender."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Workload(NamedTuple):
    """Sizes of a model and its batches: `batch` sequences of `time` predictions."""

    batch: int
    time: int
    d_model: int
    d_ff: int
    layers: int
    heads: int
    vocabulary: int


WORKLOADS = {
    "seed": Workload(32, 127, 64, 256, 4, 4, 216),
    "medium": Workload(12, 64, 128, 512, 4, 4, 65),
    "large": Workload(16, 256, 384, 1536, 6, 6, 65),
}
LEARNING_RATE = 3e-4


def make_model(workload: Workload) -> Any:
    """The same weights for every contender."""
    import minigrad as mg
    from tinyalpaca.config import ModelConfig
    from tinyalpaca.model import TinyAlpaca

    config = ModelConfig(
        vocab_size=workload.vocabulary,
        d_model=workload.d_model,
        d_ff=workload.d_ff,
        num_heads=workload.heads,
        num_layers=workload.layers,
        max_seq_len=workload.time + 1,
    )
    return TinyAlpaca(config, mg.Generator(0))


def make_batch(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (B, T)."""
    shape = (workload.batch, workload.time + 1)
    windows = np.random.default_rng(0).integers(0, workload.vocabulary, shape)
    return windows[:, :-1], windows[:, 1:]


class Ours:
    """minigrad's contender: workers, flat clipping and AdamW, as in the trainer."""

    def __init__(
        self, workload: tuple[int, ...], workers: int = 0, micro_batch_size: int = 0
    ) -> None:
        from minigrad import optim
        from tinyalpaca.config import TrainConfig
        from tinyalpaca.training.defaults import make_engine

        self.workload = Workload(*workload)
        self.model = make_model(self.workload)
        config = TrainConfig(
            batch_size=self.workload.batch,
            seq_len=self.workload.time + 1,
            workers=workers,
            micro_batch_size=micro_batch_size,
        )
        self.optimizer = optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)
        self.engine: Any = make_engine(self.model, config, self.optimizer)
        self.batch = make_batch(self.workload)
        self.steps = 0

    def step(self) -> float:
        """Forward, cross-entropy, backward, clipping, AdamW. Returns the loss."""
        scale = 1 / self.batch[1].size
        loss = self.engine.gradients(self.batch, scale=scale, key=self.steps)
        self.engine.update(self.optimizer, 1.0)
        self.steps += 1
        return loss

    def forward(self) -> float:
        """The mean loss, without gradients."""
        return self.engine.evaluate(self.batch) / self.batch[1].size

    def facts(self) -> dict[str, Any]:
        """Facts for the record."""
        return {
            "workers": self.engine.workers,
            "backend": self.engine.backend,
            "micro_batch_size": self.engine.micro_batch_size,
        }

    def close(self) -> None:
        self.engine.close()
