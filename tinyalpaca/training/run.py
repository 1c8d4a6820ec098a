"""A run: all its parts, built from the settings. Only this file knows all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.blas import OneBlasThread
from minigrad.device import CPU
from minigrad.parallel import WorkerError, mpi
from minigrad.storage import load_safetensors
from tinyalpaca import console
from tinyalpaca.config import TrainConfig
from tinyalpaca.lora import load_weights
from tinyalpaca.runs import RunFolder
from tinyalpaca.runs.checksums import check_sums
from tinyalpaca.runs.layout import REQUIRED, WEIGHTS
from tinyalpaca.training import loop
from tinyalpaca.training.checkpoint import SavedRun, read_training, restore, write_checkpoint
from tinyalpaca.training.fine_tuning import freeze
from tinyalpaca.training.gpu_steps import GpuSteps, make_steps, why_not
from tinyalpaca.training.hooks import Hook
from tinyalpaca.training.hooks.average import WeightAverage
from tinyalpaca.training.hooks.bad_steps import BadSteps
from tinyalpaca.training.hooks.checkpoints import Beginning, Checkpoints
from tinyalpaca.training.hooks.curve import LossCurve
from tinyalpaca.training.hooks.early_stop import EarlyStop
from tinyalpaca.training.hooks.lines import Lines, ProgressBar
from tinyalpaca.training.hooks.metrics import Metrics, UpdateRatios
from tinyalpaca.training.hooks.preflight import Preflight
from tinyalpaca.training.hooks.report import Report
from tinyalpaca.training.hooks.samples import Samples
from tinyalpaca.training.hooks.tensorboard import TensorBoard
from tinyalpaca.training.metrics_file import history_of
from tinyalpaca.training.resuming import refuse_other_parts, run_folder_of
from tinyalpaca.training.state import Record, TrainingState
from tinyalpaca.training.steps import Steps
from tinyalpaca.training.stopping import Stopping
from tinyalpaca.training.task import OURS, Data, Own, Task, make_task
from tinyalpaca.training.together import (
    OfFirst,
    StoppingTogether,
    digest,
    refuse_others,
    unequal_shares,
)

MOST_NAMED = 16  # ranks that are listed at the start


class Run:
    """A training with everything around it: what it writes, prints and saves.

    Args:
        model: moved to its device already.
        tokenizer: saved beside the weights.
        data: the tokens.
        config: the settings.
        folder: for everything that is written; a `RunFolder` if the caller has opened one.
        stopping: asked between steps whether to stop.
        source: where the text is from, in words.
        saved: the checkpoint to resume from.
        own: the user's own parts.
        hooks: the user's hooks, called after ours, on every rank.
        ranks: the processes that share the run; None for this one alone.

    Attributes:
        task, state, hooks: see the modules of these names.
        stopped: why training has stopped before its end, or None.
        spoiled: whether the ranks have different weights, so that none are saved.

    Raises:
        ValueError: the training sequences are longer than the data or than the model allows, or
            shorter than `eval_stride`; or `saved` belongs to another run.
    """

    tokenizer: Any
    stopping: Stopping
    ranks: mpi.Ranks | None
    spoiled: bool
    task: Task

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        data: Data,
        config: TrainConfig,
        folder: Path | RunFolder,
        *,
        stopping: Stopping | None = None,
        source: str = "",
        saved: SavedRun | None = None,
        own: Own = OURS,
        hooks: Sequence[Hook] = (),
        ranks: mpi.Ranks | None = None,
    ) -> None:
        check_windows(config, model.config.max_seq_len)
        self.folder: RunFolder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
        out, config = config.out, dataclasses.replace(config, out=str(self.folder.path))
        self.tokenizer, self.stopping = tokenizer, stopping or Stopping()
        self.stopped: str | None = None
        self.steps: Steps | None = None
        self._fingerprint = data.fingerprint()
        self.own = own
        freeze(model, config.freeze)
        self.ranks, self.spoiled = ranks, False
        self.first: bool = ranks is None or ranks.rank == 0  # prints, samples and saves
        self.task = task = make_task(model, data, config, own, ranks, resumed=saved is not None)
        size = getattr(task.engine, "micro_batch_size", 0)
        if size:  # what was chosen decides about the last bits
            config = dataclasses.replace(config, micro_batch_size=size)
        self.config = config
        self.average: WeightAverage | None = None
        if config.ema:
            self.average = WeightAverage(task.engine.flat, config.ema)
            task.weights_for_use = self.average.in_use
        model.seen_tokens = task.dataset.targets_among(tokenizer.vocab_size)
        self.state: TrainingState = task.start()
        history: list[Record] = []
        home: Path | None = None
        if saved is not None:
            refuse_other_parts(saved, task.own)
            self.state = self._restored(saved)
            home = run_folder_of(saved)
            history = history_of(home, self.state.step, self.state.records, self.warn)
            if not self.first:  # in the folder that stands for the run's it is as with rank 0
                home = self.folder.path if home.resolve() == Path(out).resolve() else None
        path = self.folder.path
        ratios = UpdateRatios(task.engine.flat, task.names) if self.first else None
        self.metrics: Metrics = Metrics(path, config.log_every, history, ratios)
        self.checkpoints: Checkpoints = Checkpoints(
            self.folder,
            self._write,
            every=config.save_every,
            minutes=config.save_minutes,
            keep=config.keep,
            due=task.validation_is_due,
            whole=self._whole,
            torn=lambda: self.steps is not None and self.steps.torn,
            sync=self.metrics.sync,
            say=self.say,
            warn=self.warn,
            home=home,
        )
        if ranks is not None:
            self._agree(ranks)
        self.samples: Samples = Samples(
            model,
            tokenizer,
            prompt=config.prompt,
            tokens=config.epoch_sample_tokens,
            seed=config.seed,
            ask=self.stopping.check,
            warn=self.warn,
        )
        shown = (model, tokenizer, config, data.validation, self.metrics, source)
        self.report: Report = Report(path, *shown, self.warn)
        self.preflight: Preflight = Preflight(
            task.engine,
            task.names,
            task.first_batch,
            batches=config.accumulate,
            steps=task.total_steps,
            validated=max(1, round(task.total_steps / task.steps_per_epoch)) * len(data.validation),
            # What a cross-entropy is before any training.
            expected_loss=None if own.loss or config.init_from else log(model.config.vocab_size),
            quicker_later=config.graph and why_not(task) is None,
            say=self.say,
            warn=self.warn,
        )
        first = [self.preflight] if config.preflight and saved is None else []
        self.hooks: list[Hook] = [*first, *self._hooks(), *hooks]

    def _hooks(self) -> list[Hook]:
        """Our hooks, in the order of their calls: first those that save, then those that print."""
        config, task, path = self.config, self.task, self.folder.path
        windows = task.sampler.batch_size * config.accumulate
        length = (task.steps_per_epoch, task.total_steps, windows)
        sequences = config.batch_size * config.accumulate
        hooks: list[Hook] = [self.average] if self.average else []
        hooks += [Beginning(self.checkpoints)]
        if self.first:
            hooks += [
                ProgressBar(config.epochs, *length, quiet=config.quiet),
                self.samples,
                self.metrics,
            ]
        if config.tensorboard and self.first:
            hooks.append(TensorBoard(path, self.metrics, self.warn))
        hooks += [
            self.checkpoints,
            BadSteps(
                task.engine,
                task.loss.training,
                task.weights_are_good,
                self.checkpoints,
                self.tokenizer.decode,
                config.skip_bad_steps,
                self.warn,
            ),
        ]
        if self.first:
            hooks += [
                Lines(config.epochs, task.total_steps, sequences, self.say),
                LossCurve(path, self.metrics, self.warn),
                self.report,
            ]
        if config.patience:
            hooks.append(EarlyStop(config.patience))
        return hooks

    @property
    def model(self) -> Any:
        """The model."""
        return self.task.model

    @property
    def records(self) -> list[Record]:
        """Of the validations, as in `metrics.jsonl`."""
        return self.state.records

    def train(self) -> None:
        """Make all remaining steps.

        Raises:
            TrainingStopped: a loss or gradient is not finite, or a file cannot be written.
        """
        config, task = self.config, self.task
        # No warnings of overflow: it is found by the loss, which is then not finite.
        # BLAS has one thread, since their number affects the last bits (of Muon, for example).
        with self.folder.open(), OneBlasThread(), np.errstate(all="ignore"):
            try:
                if self.ranks is not None:
                    self._begin_together(self.ranks)
                slower = getattr(task.engine, "why_slower", None)
                if slower:
                    self.warn(
                        "training runs on threads instead of processes, which is slower (up to 1.6 "
                        f"times for the default model): {slower}"
                    )
                looks = (config.log_every, config.save_every, config.eval_every)
                before = self.metrics.before_update
                kept = (self.average.average, self.average.decay) if self.average else None
                self.steps = make_steps(task, before, looks, config.graph, self._by_the_host, kept)
                if self.average:
                    self.average.kept_by_steps = isinstance(self.steps, GpuSteps)
                self.stopped = loop.train(task, self.state, self.steps, self.hooks, self.stopping)
                if self.stopped and self.steps.torn:
                    self._go_back()
            except (OSError, WorkerError, MemoryError) as error:
                if self.ranks is not None:  # from here on each acts alone
                    self.ranks.give_up(error)
                self.spoiled = isinstance(error, mpi.RankError) and error.spoiled
                raise self.checkpoints.stopped_by(self.state, error) from error
            finally:
                task.engine.close()
                if isinstance(self.stopping, StoppingTogether):
                    self.stopping.alone = True
                for hook in self.hooks:
                    hook.close()

    def _go_back(self) -> None:
        """Return to the last checkpoint, because workers have died during an update."""
        latest = self.folder.latest()
        if latest is None:  # another rank's folder has one from the first step on
            return
        saved = read_training(latest, self.own.model)
        self.state = self._restored(saved)
        self.metrics.losses = [pair for pair in self.metrics.losses if pair[0] <= self.state.step]
        if self.first:
            self.report.on_stop(self.state, self.stopped)

    def use_best(self) -> None:
        """Put the best weights so far into the model: training is over."""
        best = self.folder.best()
        if best is not None:
            check_sums(best, REQUIRED)
            weights, _ = load_safetensors(best / WEIGHTS)
            load_weights(self.task.model, weights)
            self.task.weights_for_use = nullcontext
        elif self.state.best is not None:
            self.warn(
                "this folder has no checkpoint of the best weights; what follows is of the last"
            )

    def _by_the_host(self, line: str) -> None:
        """From now on the steps are the host's, which do not keep the average."""
        self.warn(line)
        if self.average:
            self.average.kept_by_steps = False

    def say(self, line: str) -> None:
        """Print a line between the bars, unless the run is quiet."""
        if not self.config.quiet:
            console.say(line)

    def warn(self, line: str) -> None:
        """Print a warning, on standard error, in a quiet run too."""
        console.warn(f"Warning: {line}")

    def _write(self, folder: Path, state: TrainingState) -> None:
        parts = (self.tokenizer, self.config, self._fingerprint, self.average is not None)
        engine = self.task.engine
        if not isinstance(engine, mpi.DataParallel):
            write_checkpoint(folder, self.task, state, *parts)
            return
        engine.check()  # what is saved is good on all ranks
        with engine.whole_optimizer():
            if self.first:
                write_checkpoint(folder, self.task, state, *parts)

    def _agree(self, ranks: mpi.Ranks) -> None:
        """Let the ranks exchange what each decides by itself, or leave it to rank 0."""
        engine = self.task.engine
        assert isinstance(engine, mpi.DataParallel)
        late = OfFirst(self.checkpoints.late)
        self.checkpoints.is_late = lambda: late.answer
        engine.wishes.append((late.wish, late.hear))
        if isinstance(self.stopping, StoppingTogether):
            engine.wishes.append((self.stopping.wish, self.stopping.hear))

    def _begin_together(self, ranks: mpi.Ranks) -> None:
        """Start MPI, and check that all ranks train the same thing.

        Raises:
            ConfigError: they do not.
        """
        engine, config = self.task.engine, self.config
        assert isinstance(engine, mpi.DataParallel)
        averages = self.task.optimizer.state_dict()["state"]  # before others' shares are forgotten
        engine.start()
        weights = {name: CPU.asarray(p.array) for name, p in self.task.model.named_parameters()}
        refuse_others(
            ranks,
            config,
            self.task.model.config,
            self.state.step,
            text=self._fingerprint[:16],
            parts=self.task.own,
            weights=digest(weights),  # frozen ones too, which the optimizer does not have
            averages=digest(
                {f"{n} {key}": np.asarray(v) for n, e in averages.items() for key, v in e.items()}
            ),
        )
        names = ", ".join(ranks.name(rank) for rank in range(min(ranks.size, MOST_NAMED)))
        more = f" and {ranks.size - MOST_NAMED} more" if ranks.size > MOST_NAMED else ""
        self.say(f"Ranks: {names}{more}")
        if engine.whole_micro_batches and engine.micro_batch_size:
            unequal = unequal_shares(config.batch_size, engine.micro_batch_size, ranks)
            if unequal:
                self.warn(unequal)

    def _restored(self, saved: SavedRun) -> TrainingState:
        average = self.average.average if self.average else None
        return restore(self.task, saved, self._fingerprint, self.config.data, average)

    def _whole(self) -> bool:
        """Whether weights and average are certainly those of the state."""
        averaged = self.average is None or self.average.step == self.state.step
        return self.steps is not None and self.steps.whole and averaged and not self.spoiled


def check_windows(config: TrainConfig, longest: int) -> None:
    """Raise `ValueError` if windows are longer than the model allows."""
    if config.seq_len - 1 > longest:
        raise ValueError(
            f"training windows of {config.seq_len} tokens predict {config.seq_len - 1}, more "
            f"than the model's max_seq_len ({longest}): give --max-seq-len {config.seq_len - 1} as "
            f"well, or a --seq-len of at most {longest + 1}"
        )
    if config.eval_stride >= config.seq_len:  # found now, not when training is over
        raise ValueError(
            f"eval_stride is {config.eval_stride}, but windows of {config.seq_len} tokens "
            f"(seq_len) can move on by {config.seq_len - 1} at most: give --eval-stride less"
        )
