"""When a run is saved, and what happens if it cannot be."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tinyalpaca.console import Say
from tinyalpaca.runs import RunFolder
from tinyalpaca.runs.layout import LATEST
from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.state import Made, Record, TrainingState
from tinyalpaca.training.stopping import TrainingStopped

Write = Callable[[Path, TrainingState], None]


class Checkpoints(Hook):
    """Saves a run's checkpoints, at each validation and between them.

    Args:
        run: the folder.
        write: writes the files of a checkpoint into a folder.
        every, minutes: also save after so many steps, and so many minutes; 0: do not.
        keep: how many to keep, besides the best.
        due: whether a validation, after which there is a checkpoint anyway, comes next.
        whole: whether the weights are certainly those of the state.
        torn: whether they are certainly not, because an update was interrupted.
        sync: called before a checkpoint is written, to flush to disk what it relies on.
        say, warn: called with messages.
        home: the folder of the checkpoint that the run was resumed from.
        is_late: asked whether `minutes` have passed; `late` if left out, by this process's clock.

    Attributes:
        step: the step that was saved last, or -1.
    """

    write: Write
    due: Callable[[TrainingState], bool]
    whole: Callable[[], bool]
    torn: Callable[[], bool]
    sync: Callable[[], None]
    say: Say
    warn: Say
    run: RunFolder
    keep: int
    every: int
    minutes: float
    home: Path | None
    step: int

    def __init__(
        self,
        run: RunFolder,
        write: Write,
        *,
        every: int,
        minutes: float,
        keep: int,
        due: Callable[[TrainingState], bool],
        whole: Callable[[], bool],
        torn: Callable[[], bool],
        sync: Callable[[], None],
        say: Say,
        warn: Say,
        home: Path | None = None,
        is_late: Callable[[], bool] | None = None,
    ) -> None:
        self.run, self.write, self.keep = run, write, keep
        self.every, self.minutes = every, minutes
        self.due, self.whole, self.torn, self.sync = due, whole, torn, sync
        self.say, self.warn, self.home = say, warn, home
        self.step, self._at, self._ready = -1, time.monotonic(), False
        self.is_late: Callable[[], bool] = is_late or self.late

    def late(self) -> bool:
        """Whether `minutes` have passed since the last checkpoint."""
        return 0 < self.minutes <= (time.monotonic() - self._at) / 60

    def begin(self, state: TrainingState) -> None:
        """Before anything else is written: move the files of an earlier run aside.

        A new run writes its first checkpoint. That shows that the folder can be written, and marks
        it as a run's folder if the run is killed later.
        """
        if self.home is not None and self.home.resolve() == self.run.path.resolve():
            self.step = state.step
        else:
            earlier = self.run.set_earlier_aside()
            if earlier is not None:
                self.say(f"The run that was in {self.run.path} is now in {earlier}")
            last = state.records[-1]["step"] if state.records else -1
            self.save(state, best=state.is_best and last == state.step)
        self._ready = True
        if state.best is not None:
            if self.run.all():
                self.run.mend_best(state.records[state.best["record"]]["step"], self.warn)
            self.run.publish()

    def on_step(self, state: TrainingState, made: Made) -> None:
        if self.due(state):
            return
        wanted = self.every > 0 and state.step % self.every == 0
        if wanted or self.is_late():
            self.save(state)

    def on_epoch(self, state: TrainingState, record: Record) -> None:
        self.save(state, best=state.is_best)
        if state.is_best:
            self.run.publish()

    def on_stop(self, state: TrainingState, reason: str | None) -> None:
        if reason is not None:
            self.save_at_stop(state)

    def save_at_stop(self, state: TrainingState) -> None:
        """Save where the loop ends early, unless that step is saved already."""
        if self.step != state.step and not self.torn():
            self.save(state)
        if state.best is None:
            self.run.publish(LATEST)

    def save(self, state: TrainingState, *, best: bool = False) -> None:
        """Write a checkpoint.

        Raises:
            TrainingStopped: it could not be written; the last good one is as it was.
        """
        try:
            self._write(state, best)
        except (OSError, MemoryError) as error:
            raise self._could_not_save(state, error) from error

    def stopped_by(self, state: TrainingState, error: Exception) -> TrainingStopped:
        """Save the last step if that is possible. Returns the error, which says what is saved."""
        if not (self._ready and self.whole()):
            return self._could_not_save(state, error)
        if state.step != self.step:
            try:
                best = state.best
                new = best is not None and state.records[best["record"]]["step"] > self.step
                self._write(state, new)
            except (OSError, MemoryError) as second:
                return self._could_not_save(state, second)
        return TrainingStopped(
            f"{_told(error)}\nThe weights of step {state.step} are in {self.run.latest()}. "
            "--resume continues from there."
        )

    def _write(self, state: TrainingState, best: bool) -> None:
        self.sync()
        name = self.run.name_for(state.step)
        self.run.add(name, lambda path: self.write(path, state), best=best, keep=self.keep)
        self.step, self._at = state.step, time.monotonic()

    def _could_not_save(self, state: TrainingState, error: Exception) -> TrainingStopped:
        latest = self.run.latest() if self.step >= 0 else None
        good = (
            f"The last good checkpoint is {latest}. --resume continues from there."
            if latest
            else "Nothing has been saved yet."
        )
        disk = isinstance(error, OSError)
        what = f"step {state.step} could not be saved: " if disk else ""
        return TrainingStopped(f"{what}{_told(error)}\n{good}")


class Beginning(Hook):
    """Prepares the folder. It comes before all other hooks that write there."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def on_start(self, state: TrainingState) -> None:
        self.checkpoints.begin(state)


def _told(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return (
            f"out of memory: {str(error) or 'no more is to be had'}. Fewer --workers need less; "
            "so does a new run with a smaller --batch-size, --micro-batch-size or model."
        )
    return str(error)
