"""A task's steps on a GPU, many at a time. The CPU reads results back only now and then.

It does so at steps whose results are shown and at the end of an epoch. In between it only launches
steps. After reading back it counts them, so that schedule and optimizer are in the same state as if
the CPU had made each step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigrad.optim import counting
from minigrad.parallel import mpi
from tinyalpaca.training import device_steps as launching
from tinyalpaca.training.loss import own_seed
from tinyalpaca.training.state import Part, Result, TrainingState
from tinyalpaca.training.steps import BeforeUpdate, HostSteps, Steps
from tinyalpaca.training.task import Task

MOST_MEMORY = 0.5  # share of a GPU's free memory that tokens may take
MOST_STEPS = 4096  # results are read back at least once in so many steps
BY_THE_HOST = "the host makes every step, there is no CUDA graph: "
Average = tuple[Any, float]  # an array like the flat parameters, and a decay


class PlannedStep(NamedTuple):
    """The windows of each batch of a step, and the sampler's state after them."""

    batches: list[np.ndarray]
    after: dict[str, int]

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(len(batch) for batch in self.batches)


def why_not(task: Task) -> str | None:
    """Why this task's steps need the CPU, or None if a GPU can make them on its own."""
    device = task.parameters[0].device
    if device.kind != "gpu":
        return "the model is on the CPU"
    needed = 4 * len(task.data.train) + 8 * task.sampler.count
    free, _ = device.xp.cuda.runtime.memGetInfo()
    if needed > MOST_MEMORY * free:
        sizes = f"{needed / 1e9:,.1f} GB of the {free / 1e9:,.1f} GB that are free on the GPU"
        return f"the training tokens would take {sizes}"
    if not getattr(task.schedule, "moves_rates_alone", False):
        return f"{type(task.schedule).__name__} moves more than learning rates"
    return counting.why_not(task.optimizer)


def check_tokens(tokens: np.ndarray, vocab_size: int) -> None:
    """Check all tokens once, because the GPU's kernels do not check them.

    Raises:
        IndexError: a token is not in the model's vocabulary.
    """
    lowest, highest = int(tokens.min()), int(tokens.max())
    if lowest < 0 or highest >= vocab_size:
        raise IndexError(
            f"the training tokens go from {lowest} to {highest}, but the model has a vocabulary of "
            f"{vocab_size}: it was made for another tokenizer"
        )


class GpuSteps:
    """Makes a task's steps on its GPU.

    Args:
        task: the model, data and optimizer to train.
        before_update: called before each launch.
        looks: results are read back at steps that one of these numbers divides. A 0 is ignored; the
            first number must not be 0.
        graph: whether a step is captured as a CUDA graph (two, where processes share it).
        average: the average of the weights, (P,) on the GPU, and its decay; or None.
        warn: is called with the reason if the optimizer is changed in such a way that the host has
            to make all further steps.

    Raises:
        ValueError: `why_not(task)` has a reason, or compiling has found one (`NeedsHost`).
        IndexError: a token is not in the model's vocabulary.
    """

    before_update: BeforeUpdate
    task: Task
    looks: Sequence[int]

    def __init__(
        self,
        task: Task,
        before_update: BeforeUpdate,
        looks: Sequence[int],
        graph: bool,
        average: Average | None = None,
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        reason = why_not(task)
        if reason:
            raise ValueError(reason)
        check_tokens(task.data.train, task.model.config.vocab_size)
        self.task, self.before_update, self.looks = task, before_update, looks
        self.host: HostSteps | None = None  # makes the steps when the GPU no longer can
        self._torn, self._warn = False, warn
        self.ring: int = min(looks[0], MOST_STEPS)
        schedule = task.schedule
        rates = [schedule.lrs_at(step) for step in range(task.total_steps)]
        self.rates: Any = np.array(rates, np.float64).T  # (groups, steps), as the device has them
        kept, decay = average or (None, 0.0)
        shared: dict[str, Any] = {}
        own_masks: tuple[int, ...] = ()
        engine = task.engine
        if isinstance(engine, mpi.DataParallel):
            own_masks = (own_seed(engine.ranks.rank),)
            shared = {"share": engine.share, "between": engine.reduce}
        self.launched: launching.DeviceSteps = launching.DeviceSteps(
            task.engine.flat,
            task.optimizer,
            lambda *arguments: task.loss.on_device(*arguments, *own_masks),
            tokens=task.data.train,
            time=task.seq_len - 1,
            windows=task.sampler.count,
            rates=self.rates,
            ring=self.ring,
            max_norm=task.max_norm,
            average=kept,
            average_decay=decay,
            graph=graph,
            **shared,
        )
        self._compile()
        self._updates: int | None = None  # updates that the device has made
        self.plan: list[PlannedStep] = []  # the remaining steps of the epoch that the device has
        self.place: tuple[int, dict[str, int]] | None = None  # the device's next step, its sampler

    @property
    def whole(self) -> bool:
        """False while the GPU makes the steps, because it may be ahead of the host."""
        return self.host is not None and self.host.whole

    @property
    def torn(self) -> bool:
        return self._torn or (self.host is not None and self.host.torn)

    def run(self, state: TrainingState) -> list[Result]:
        """Make steps until results are read back."""
        if self.host is None:
            reason = self._why_not()
            if reason:
                self._warn(BY_THE_HOST + reason)
                self.host = HostSteps(self.task, self.before_update)
        if self.host is not None:
            return self.host.run(state)
        if self.place != (state.step, state.sampler) or not self.plan:
            self._tell_device(state)
        count = min(self._until_look(state.step), len(self.plan))
        self._tell_rates(state.step, count)
        self._torn = True  # until the host has counted the device's steps
        for number, step in enumerate(self.plan[:count], state.step + 1):
            self.before_update(number)
            self.launched.launch(step.rows)
        progress = self.launched.look()
        made = [self._result(step, progress) for step in range(state.step, progress.step)]
        for _ in made:
            self.task.schedule.step()
        counting.count_steps(self.task.optimizer, len(made))
        self._updates = counting.steps_made(self.task.optimizer)
        self._torn = False
        if made:
            self.place = progress.step, made[-1].sampler
        if progress.halted:
            self.place = None
            dataset, planned = self.task.dataset, self.plan[0].batches
            batches: list[Part] = [dataset.batch_at(indices) for indices in planned]
            bad = self._result(progress.step, progress)
            made.append(bad._replace(batches=(batches, progress.step * self.task.accumulate)))
        return made

    def leave_out(self, state: TrainingState) -> None:
        self.task.schedule.step()

    def _result(self, step: int, progress: launching.Progress) -> Result:
        """The result of the first step in the plan, which is removed from it."""
        loss, grad_norm = progress.of(step)
        planned = self.plan.pop(0)
        tokens = sum(planned.rows) * (self.task.seq_len - 1)
        return Result(loss, grad_norm, self.task.learning_rate(step), tokens, planned.after)

    def _why_not(self) -> str | None:
        """Why the next steps need the host, because of a change since the last ones; or None."""
        reason = self.launched.why_not()
        made = counting.steps_made(self.task.optimizer)
        if reason is None and made is None:
            return counting.why_not(self.task.optimizer)
        if made != self._updates:  # another state was loaded
            self.place = None
        if reason is None and self.launched.forget_others():
            try:
                self._compile()
            except launching.NeedsHost as error:
                return str(error)
        return reason

    def _compile(self) -> None:
        self.launched.compile([self.task.sampler.batch_size] * self.task.accumulate)

    def _tell_rates(self, first: int, count: int) -> None:
        """Copy the learning rates of the next steps to the device, if they have changed.

        A rate that was set by hand stays until the schedule itself changes it, as on the host.
        """
        schedule = self.task.schedule
        rates = [float(group["lr"]) for group in self.task.optimizer.param_groups]
        wanted, before = [rates], schedule.lrs_at(first)
        for step in range(first + 1, first + count):
            now = schedule.lrs_at(step)
            changes = zip(now, before, rates, strict=True)
            rates = [new if new != old else rate for new, old, rate in changes]
            wanted.append(rates)
            before = now
        table = np.array(wanted, np.float64).T
        if not np.array_equal(self.rates[:, first : first + count], table):
            self.rates[:, first : first + count] = table
            self.launched.set_rates(self.rates)

    def _until_look(self, step: int) -> int:
        """How many steps may be launched before the CPU has to read results back."""
        bounds = [self.task.total_steps - step, self.ring]
        return min(bounds + [every - step % every for every in self.looks if every])

    def _tell_device(self, state: TrainingState) -> None:
        """Copy the epoch's remaining windows and the number of the next step to the device."""
        task, batches = self.task, []
        self.plan = []
        task.sampler.load_state_dict(state.sampler)
        for indices in task.sampler:
            batches.append(indices)
            over = task.sampler.epoch != state.sampler["epoch"]
            if len(batches) == task.accumulate or over:
                self.plan.append(PlannedStep(batches, task.sampler.state_dict()))
                batches = []
        rest = [indices for step in self.plan for indices in step.batches]
        self.launched.set_windows(task.dataset.starts_at(np.concatenate(rest)))
        updates, draw = counting.steps_made(task.optimizer), state.step * task.accumulate
        assert updates is not None, "it was asked before"
        self.launched.set_position(state.step, updates=updates, draw=draw)
        self.place = state.step, state.sampler


def make_steps(
    task: Task,
    before_update: BeforeUpdate,
    looks: Sequence[int],
    graph: bool,
    warn: Callable[[str], None],
    average: Average | None = None,
) -> Steps:
    """The object that makes this task's steps. Warns if a GPU cannot make them on its own."""
    reason = why_not(task)
    if reason is None:
        try:
            return GpuSteps(task, before_update, looks, graph, average, warn)
        except launching.NeedsHost as error:
            reason = str(error)
    if task.parameters[0].device.kind == "gpu":
        warn(BY_THE_HOST + reason)
    return HostSteps(task, before_update)
