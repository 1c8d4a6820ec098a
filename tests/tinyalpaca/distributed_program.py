"""The program of the ranks in `test_distributed.py`: a small training with given settings.

mpirun -n 2 python distributed_program.py SETTINGS.json
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

import tinyalpaca
from minigrad.parallel import mpi
from tests.tinyalpaca.runs import MODEL, TRAINING
from tinyalpaca import console
from tinyalpaca.cli import guarded
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.training import checkpoint
from tinyalpaca.training.hooks import Hook


class Double(TinyAlpaca):
    """A model in float64."""

    def __init__(self, config: Any, rng: Any) -> None:
        super().__init__(config, rng)
        self.astype("float64")


class Remembered(TinyAlpaca):
    """A model that stays accessible to the test."""

    made: ClassVar[list[Any]] = []

    def __init__(self, config: Any, rng: Any) -> None:
        super().__init__(config, rng)
        self.made.append(self)


class Happens(Hook):
    """Makes something happen to one rank after a step."""

    def __init__(self, what: str, rank: int, step: int) -> None:
        self.what, self.rank, self.at = what, rank, step

    def on_step(self, state: Any, made: Any) -> None:
        if mpi.place().rank != self.rank or state.step != self.at:
            return
        if self.what == "full disk":

            def full(*arguments: Any, **more: Any) -> None:
                raise OSError(28, "No space left on device", "the disk")

            checkpoint.save_safetensors = full  # type: ignore[assignment]
        elif self.what == "diverges":
            Remembered.made[-1].parameters()[0].data[0, 0] += 1e-6
        else:
            os.kill(os.getpid(), getattr(signal, self.what))


def train(settings: dict[str, Any]) -> Any:
    """Run a training. The special settings of these tests are removed first."""
    settings = dict(settings)
    double, resume = settings.pop("double", False), settings.pop("resume", False)
    happens, differs = settings.pop("happens", None), settings.pop("differs", None)
    diverges = bool(happens) and happens[0] == "diverges"
    sizes = {**MODEL, **settings.pop("model", {})}
    if differs is not None and mpi.place().rank == 1:
        settings |= differs
    config = TrainConfig(**{**TRAINING, **settings})
    return tinyalpaca.train(
        config,
        ModelConfig(**sizes),
        model=Double if double else Remembered if diverges else TinyAlpaca,
        hooks=[Happens(*happens)] if happens else [],
        resume=resume,
    )


def main(args: Any = None) -> int:
    run = train(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    return run.stopping.exit_status if run.stopped else 0


if __name__ == "__main__":
    console.open_streams()
    sys.exit(console.close_streams(guarded(main, None)))  # type: ignore[arg-type]
