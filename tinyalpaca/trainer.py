"""The training loop: steps, a validation after each epoch, checkpoints, and a way out at any step.

All that a step depends on is its number and the weights: windows come from a sampler whose state is
three integers, dropout masks from the seed and the step, gradients are the same for any number of
workers. So a run that stops anywhere and goes on later is, bit for bit, the run that never stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.parallel import WorkerError, Workers
from minigrad.parallel.blas import OneBlasThread
from minigrad.storage import load_safetensors
from tinyalpaca import console
from tinyalpaca.checkpoint import WEIGHTS
from tinyalpaca.config import TrainConfig
from tinyalpaca.evaluation import Part, Score, evaluate
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.tokenizing.tokenizer_base import Tokenizer
from tinyalpaca.training.bad_steps import TrainingStopped
from tinyalpaca.training.checksums import check_sums
from tinyalpaca.training.device_loop import DeviceLoop, make_loop
from tinyalpaca.training.ema import WeightAverage
from tinyalpaca.training.epochs import LOSS_CURVE, LossCurve, finish_epoch
from tinyalpaca.training.host_loop import HostLoop
from tinyalpaca.training.metrics import METRICS, MetricsLog, UpdateRatios, memory_mb
from tinyalpaca.training.progress import progress_bar
from tinyalpaca.training.run_folder import REQUIRED, RunFolder
from tinyalpaca.training.saving import Saver
from tinyalpaca.training.stopping import Stopping, StopRequested
from tinyalpaca.training.trainer_state import restore
from tinyalpaca.training.training_checkpoint import SavedRun, read_training
from tinyalpaca.training.training_parts import (
    Data,
    count_steps,
    evaluation_loss,
    make_engine,
    make_optimizer,
    make_sampler,
    make_schedule,
    parameter_groups,
    train_loss,
)

__all__ = [
    "LOSS_CURVE",
    "METRICS",
    "Data",
    "Trainer",
    "TrainingStopped",
    "evaluation_loss",
    "make_engine",
    "make_sampler",
    "make_schedule",
    "train_loss",
]


class Trainer:
    """Trains a model and writes what came of it into a folder.

    Args:
        model: moved to its device already.
        tokenizer: saved beside the weights.
        data: the tokens.
        config: the settings.
        folder: for everything that is written; a `RunFolder` if the caller has opened one.
        stopping: asked between steps whether to stop.

    Attributes:
        step: updates made so far.
        records: of the epochs, as in `metrics.jsonl`.
        stopped: why training has stopped before its end, or None.

    Raises:
        ValueError: the training sequences are longer than the data or than the model allows, or
            shorter than a move of the last validation's windows.
    """

    def __init__(
        self,
        model: TinyAlpaca,
        tokenizer: Tokenizer,
        data: Data,
        config: TrainConfig,
        folder: Path | RunFolder,
        *,
        stopping: Stopping | None = None,
    ) -> None:
        if config.seq_len - 1 > model.config.max_seq_len:
            raise ValueError(
                f"training windows of {config.seq_len} tokens predict {config.seq_len - 1}, more "
                f"than the model's max_seq_len ({model.config.max_seq_len})"
            )
        if config.eval_stride >= config.seq_len:  # found now, not when training is over
            raise ValueError(
                f"eval_stride is {config.eval_stride}, but windows of {config.seq_len} tokens "
                f"(seq_len) can move on by {config.seq_len - 1} at most: give --eval-stride less"
            )
        self.model, self.tokenizer, self.data, self.config = model, tokenizer, data, config
        self.data_fingerprint = data.fingerprint()
        self.run = folder if isinstance(folder, RunFolder) else RunFolder(folder)
        self.folder = self.run.path
        self.stopping = stopping or Stopping()
        self.dataset, self.sampler = make_sampler(data.train, config)
        model.seen_tokens = self.dataset.targets_among(tokenizer.vocab_size)
        groups = parameter_groups(model, config)
        self.sampler_before = self.sampler.state_dict()
        self.parameters = [p for group in groups for p in group["params"]]
        name_of = {id(p): name for name, p in model.named_parameters()}
        self.names = [name_of[id(p)] for p in self.parameters]
        self.optimizer = make_optimizer(groups, config)
        self.engine = make_engine(model, config, self.optimizer)
        if isinstance(self.engine, Workers):  # what was chosen decides about the last bits
            size = self.engine.micro_batch_size
            self.config = config = dataclasses.replace(config, micro_batch_size=size)
        self.average = WeightAverage(self.engine.flat, config.ema) if config.ema else None
        self.ratios = UpdateRatios(self.engine.flat, self.names)
        self.curve = LossCurve(self.folder)
        self.steps_per_epoch = ceil(len(self.sampler) / config.accumulate)
        self.total_steps = count_steps(config, self.steps_per_epoch)
        self.schedule = make_schedule(
            self.optimizer, config, self.steps_per_epoch, self.total_steps
        )
        self.step, self.skipped, self.bad_in_a_row = 0, 0, 0
        self.loss_sum, self.loss_count, self.grad_norm = 0.0, 0, 0.0
        self.best: dict[str, Any] | None = None
        self.step_losses: list[tuple[int, float]] = []
        self.records: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []
        self.metrics: MetricsLog | None = None
        self.stopped: str | None = None
        self.saver = Saver(self)
        self.loop: HostLoop | DeviceLoop | None = None
        self.home: Path | None = None  # the folder that has this run's checkpoints
        self.torn = False  # whether an update was interrupted half-way

    # The loop

    def train(self) -> list[dict[str, Any]]:
        """All epochs. Returns their records, which `metrics.jsonl` holds as well.

        Raises:
            TrainingStopped: a loss or gradient is not finite, or the disk does not take a file.
        """
        # Overflow is looked for, and found, by what becomes of it: a loss that is not finite.
        # BLAS has one thread, since how many it has decides about last bits (Muon's, say).
        with self.run.open(), OneBlasThread(), np.errstate(all="ignore"):
            try:
                self.make_room()
                if self.step == 0:
                    # The folder takes a checkpoint, and there is one from now on. It comes first:
                    # by it a run that is killed here is known as one of ours.
                    self.saver.save()
                self.metrics = MetricsLog(self.folder, self.history)
                if isinstance(self.engine, Workers) and self.engine.why_slower:
                    self.warn(
                        "training runs on threads instead of processes, which is slower (up to 1.6 "
                        f"times for the default model): {self.engine.why_slower}"
                    )
                if self.best is not None:
                    self.publish_again()
                with contextlib.suppress(StopRequested):
                    while not self.finished:
                        self.train_epoch()
                if not self.finished:
                    self.stopped = self.stopping.reason
                    if self.torn:
                        self.go_back()
                    self.saver.save_at_stop()
            except (OSError, WorkerError, MemoryError) as error:
                raise self.saver.stopped_by(error) from error
            finally:
                self.engine.close()
                if self.metrics is not None:
                    self.history = self.metrics.history
                    with contextlib.suppress(OSError):
                        self.metrics.close()
        return self.records

    def make_room(self) -> None:
        """Set aside what another run has left in the folder."""
        if self.home != self.folder.resolve():
            earlier = self.run.set_earlier_aside()
            if earlier is not None:
                self.say(f"The run that was in {self.folder} is now in {earlier}")
            self.home = self.folder.resolve()

    def publish_again(self) -> None:
        """The best weights so far at the top of the folder, if this is the folder that has them."""
        assert self.best is not None
        if self.run.all():
            self.run.mend_best(self.records[self.best["record"]]["step"], self.warn)
        self.run.publish()

    @property
    def finished(self) -> bool:
        """True when nothing is left to do."""
        if self.validation_is_due or not self.records:
            return False
        since_best = len(self.records) - 1 - (self.best or {"record": -1})["record"]
        impatient = bool(self.config.patience) and since_best >= self.config.patience
        return self.step >= self.total_steps or impatient

    @property
    def validation_is_due(self) -> bool:
        """True if an epoch (or the last step) has been trained but not validated yet."""
        validated = self.records[-1]["step"] if self.records else 0
        over = self.sampler.position == 0 or self.step >= self.total_steps
        return self.step > validated and over

    def train_epoch(self) -> None:
        """The rest of this epoch, a validation, a line, a record, and a checkpoint."""
        began, first, tokens = time.perf_counter(), self.step, 0
        done = ceil(self.sampler.position / (self.sampler.batch_size * self.config.accumulate))
        rate = 0.0
        with progress_bar(
            f"Epoch {self.epoch_number}/{self.config.epochs}",
            total=min(self.steps_per_epoch, done + self.total_steps - self.step),
            initial=done,
            quiet=self.config.quiet,
        ) as bar:
            while not self.validation_is_due and self.step < self.total_steps:
                self.stopping.check()
                made = self.next_steps()
                loss = made[-1][0]
                tokens += sum(count for _, count in made)
                rate = tokens / (time.perf_counter() - began)
                bar.set_postfix_str(f"loss {loss:.4f}, {rate:,.0f} tokens/s", refresh=False)
                bar.update(len(made))
                self.log_step(loss, rate)
                if self.saver.due:
                    self.saver.save()
        finish_epoch(self, began, rate if self.step > first else 0.0)

    def next_steps(self) -> list[tuple[float, int]]:
        """One update, or on a GPU as many as until the next look. Returns losses and tokens.

        Raises:
            TrainingStopped: a loss or a gradient is not finite; the weights are as before it.
        """
        if self.loop is None:
            self.loop = make_loop(self)
        return self.loop.run()

    def train_step(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """One update of the weights from a batch (B, T). Returns loss and gradient norm.

        Raises:
            TrainingStopped: the loss or a gradient is not finite; the weights are unchanged.
        """
        if self.loop is not None:
            self.loop.forget()
        return HostLoop(self).update([(x, y)]), self.grad_norm

    @property
    def first_key(self) -> int:
        """The key of the next step's first batch, on which its dropout masks depend."""
        return self.step * self.config.accumulate

    def count_step(self, loss: float, *, good: bool = True) -> None:
        """Take note of a step that has been made, or left out because it was not `good`."""
        if good:
            self.bad_in_a_row = 0
            self.loss_sum, self.loss_count = self.loss_sum + loss, self.loss_count + 1
        self.schedule.step()
        self.step += 1
        self.step_losses.append((self.step, loss))

    def log_step(self, loss: float, rate: float) -> None:
        """A record every few steps."""
        if self.metrics is None or self.step % self.config.log_every or not isfinite(loss):
            return
        record = {"kind": "step", "step": self.step, "epoch": self.epoch_number, "loss": loss}
        record |= {"learning_rate": self.last_learning_rate, "grad_norm": self.grad_norm}
        record |= {"tokens_per_second": rate, "memory_mb": memory_mb()}
        if self.ratios.before is not None:
            record["update_ratio"] = self.ratios.measure()
        self.metrics.write(record)

    @property
    def epoch_number(self) -> int:
        """The epoch that the last step belongs to, or the next one at its beginning; from 1."""
        complete = self.validation_is_due and self.sampler.position == 0
        return self.sampler.epoch + (0 if complete else 1)

    @property
    def last_learning_rate(self) -> float:
        """The rate of the first group in the update that has been made last."""
        last = max(0, self.schedule.last_epoch - 1)
        return self.schedule.lr_at(self.schedule.base_lrs[0], last)

    def validate(self, stride: int = 0) -> Score:
        """Score of the validation text, each token but the first predicted once."""

        def summed_loss(part: Part) -> Any:
            self.stopping.check()
            return self.engine.evaluate(part)

        return evaluate(
            summed_loss,
            self.data.validation,
            self.data.validation_characters,
            seq_len=self.config.seq_len,
            batch_size=self.config.batch_size,
            stride=stride,
        )

    @contextlib.contextmanager
    def weights_for_use(self) -> Iterator[None]:
        """Context manager: the model has the weights that are validated and saved for use."""
        if self.average is None:
            yield
        else:
            with self.average.in_use():
                yield

    def say(self, line: str) -> None:
        """Print a line between the bars, unless the run is quiet."""
        if not self.config.quiet:
            console.say(line)

    def warn(self, line: str) -> None:
        """Print a warning, on standard error, in a quiet run too."""
        console.warn(f"Warning: {line}")

    def load(self, saved: SavedRun) -> None:
        """Go on from a checkpoint. Call it before `train`.

        Raises:
            ValueError: it belongs to other data or another model.
        """
        restore(self, saved)
        self.loop = None

    def go_back(self) -> None:
        """Go back to the last checkpoint: workers have died in the middle of an update."""
        latest = self.run.latest()
        assert latest is not None  # there is one from the first step on
        self.torn = False
        self.load(read_training(latest))

    def use_best(self) -> None:
        """Put the best weights so far into the model: training is over."""
        best = self.run.best()
        if best is None and self.best is not None:
            self.warn(
                "this folder has no checkpoint of the best weights; what follows is of the last"
            )
        if best is not None:
            check_sums(best, REQUIRED)
            weights, _ = load_safetensors(best / WEIGHTS)
            self.model.load_state_dict(weights)
            self.average = None

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """Names and parameters in the optimizer's order."""
        return zip(self.names, self.parameters, strict=True)
