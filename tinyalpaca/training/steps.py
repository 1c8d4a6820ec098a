"""Steps that are made one by one: the CPU reads each loss before the next step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from minigrad.parallel import accumulated, mpi
from tinyalpaca.training.state import Part, Result, TrainingState
from tinyalpaca.training.task import Task

BeforeUpdate = Callable[[int], None]  # called with the number of the step, before its update


class Steps(Protocol):
    """What makes a task's steps."""

    @property
    def torn(self) -> bool:
        """Whether an update was interrupted half-way, so that the weights are those of no step."""

    @property
    def whole(self) -> bool:
        """Whether it is certain that the task has exactly the weights of the state's step."""

    def run(self, state: TrainingState) -> list[Result]:
        """Make the next step, or several. The state does not change.

        If a step's loss or gradient is not finite, its result is the last one, and the weights do
        not change.
        """

    def leave_out(self, state: TrainingState) -> None:
        """Skip the step after `state`, which was not finite; it counts as made."""


class HostSteps:
    """Makes a task's steps with its engine, on the CPU or on a GPU.

    Args:
        task: what is trained.
        before_update: called before each update.
    """

    def __init__(self, task: Task, before_update: BeforeUpdate = lambda step: None) -> None:
        self.task, self.before_update = task, before_update
        self.torn = False

    @property
    def whole(self) -> bool:
        return not self.torn and getattr(self.task.engine, "survives", False)

    def run(self, state: TrainingState) -> list[Result]:
        """One update, with the mean gradient over all tokens of the next batches."""
        task = self.task
        batches, after = self._next_batches(state)
        count, key = sum(part[1].size for part in batches), state.step * task.accumulate
        loss, grad_norm = self._gradients(batches, 1 / count, key)
        result = Result(loss, grad_norm, task.learning_rate(state.step), count, after)
        if not result.finite:
            return [result._replace(batches=(batches, key))]
        self.before_update(state.step + 1)
        self.torn = True
        task.engine.update(task.optimizer, task.max_norm)
        task.schedule.step()
        self.torn = False
        return [result]

    def leave_out(self, state: TrainingState) -> None:
        self.task.schedule.step()

    def _next_batches(self, state: TrainingState) -> tuple[list[Part], dict[str, int]]:
        """A step's batches (fewer at the end of an epoch), and the sampler's state after it."""
        task = self.task
        batches: list[Part] = []
        task.sampler.load_state_dict(state.sampler)
        for indices in task.sampler:
            batches.append(task.dataset.batch_at(indices))
            if len(batches) == task.accumulate:
                break
        return batches, task.sampler.state_dict()

    def _gradients(self, batches: list[Part], scale: float, key: int) -> tuple[float, float]:
        """Let the engine add up the batches' gradients. Returns the loss and the gradient norm."""
        engine = self.task.engine
        if isinstance(engine, mpi.DataParallel):  # the ranks communicate once for all batches
            loss = engine.accumulated(batches, scale=scale, key=key)
        else:
            loss = accumulated(engine, batches, scale=scale, key=key)
        return loss, engine.grad_norm
