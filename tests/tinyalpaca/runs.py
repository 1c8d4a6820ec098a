"""A training that is small enough to be run many times in a test."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.storage import load_safetensors
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.runs import RunFolder
from tinyalpaca.training.job import resume_training, run_training
from tinyalpaca.training.stopping import Stopping

ROOT = Path(__file__).parents[2]
# For commands in processes of their own: a picture takes longer than their runs.
WITHOUT_PICTURES = os.pathsep.join([str(Path(__file__).parent / "without_pictures"), str(ROOT)])
GLOBAL_LOCK: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
workers_are_processes = pytest.mark.skipif(
    sys.platform != "linux" or not GLOBAL_LOCK,
    reason="workers are processes on Linux, and where Python has its global lock",
)
MODEL = {"d_model": 8, "d_ff": 16, "num_heads": 2, "num_layers": 1, "max_seq_len": 16}
TRAINING = {
    "epochs": 2,
    "batch_size": 8,
    "seq_len": 17,
    "num_merges": 5,
    "learning_rate": 1e-2,
    "workers": 1,
    "micro_batch_size": 4,
    "log_every": 1,
    "preflight": False,
    "epoch_sample_tokens": 0,
    "sample_tokens": 0,
    "prompt": "the ",
    "quiet": True,
}


def write_text(folder: Path) -> Path:
    """Write a text of about 1,500 characters that has something to learn in it."""
    rng = np.random.default_rng(7)
    words = np.array(["the ", "king ", "and ", "queen ", "speak ", "no ", "more,\n", "thou "])
    path = folder / "text.txt"
    path.write_text("".join(words[rng.integers(0, len(words), 300)]), encoding="utf-8")
    return path


def train(folder: Path, text: Path, model: dict[str, Any] | None = None, **settings: Any):
    """Start a new run."""
    config = TrainConfig(**{**TRAINING, "data": str(text), "out": str(folder), **settings})
    return run_training(ModelConfig(**{**MODEL, **(model or {})}), config)


def resume(folder: Path, **settings: Any):
    """Resume a run."""
    return resume_training(folder, {}, settings)


def final_weights(folder: Path) -> dict[str, np.ndarray]:
    """The weights of a run's latest checkpoint, as trained."""
    latest = RunFolder(folder).latest()
    assert latest is not None
    return load_safetensors(latest / "model.safetensors")[0]


def assert_same_weights(a: Path, b: Path) -> None:
    """The weights of two runs are bitwise identical."""
    left, right = final_weights(a), final_weights(b)
    assert left.keys() == right.keys()
    for name, weights in left.items():
        assert np.array_equal(weights, right[name]), name


def results(run: Any) -> list[tuple]:
    """The results that must be the same in two runs: losses and learning rate of each epoch."""
    keys = ("epoch", "step", "train_loss", "val_loss", "learning_rate", "grad_norm")
    return [tuple(record[key] for key in keys) for record in run.state.records]


class StopAt(Stopping):
    """Says "stop" when it has been asked a number of times: in the loop, validation or sampling."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self.left = questions

    @property
    def wanted(self) -> bool:
        self.left -= 1
        return self.left < 0

    @property
    def reason(self) -> str:
        return "a test"
