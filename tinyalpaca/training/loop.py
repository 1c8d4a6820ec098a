"""The training loop: steps, a validation after each epoch, and a stop after any step.

A step depends only on its number and the weights. Windows come from a sampler whose state is three
integers, dropout masks from the seed and the step's number, and gradients are the same for any
number of workers. So a run that is stopped and resumed is bitwise identical to one that never was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from minigrad.parallel import WorkerError
from tinyalpaca.training.hooks import Hook
from tinyalpaca.training.records import validation_record
from tinyalpaca.training.state import Made, Result, TrainingState
from tinyalpaca.training.steps import Steps
from tinyalpaca.training.stopping import Stopping, StopRequested, TrainingStopped
from tinyalpaca.training.task import Task


def train(
    task: Task,
    state: TrainingState,
    steps: Steps,
    hooks: Sequence[Hook] = (),
    stopping: Stopping | None = None,
) -> str | None:
    """Make all remaining steps of a run. Each step changes `state`.

    Args:
        task: what is trained.
        state: where to begin: `task.start()`, or the state of a checkpoint.
        steps: makes the task's steps.
        hooks: called in this order.
        stopping: asked between steps whether to stop.

    Returns:
        Why training has stopped before its end, or None.

    Raises:
        TrainingStopped: a loss or gradient is not finite.
    """
    stopping = stopping or Stopping()
    for hook in hooks:
        hook.on_start(state)
    reason = None
    try:
        while not finished(task, state, hooks):
            train_epoch(task, state, steps, hooks, stopping)
    except StopRequested:
        if not finished(task, state, hooks):
            reason = stopping.reason
    for hook in hooks:
        hook.on_stop(state, reason)
    return reason


def train_epoch(
    task: Task,
    state: TrainingState,
    steps: Steps,
    hooks: Sequence[Hook],
    stopping: Stopping,
) -> None:
    """Make the steps up to the next validation, then validate, unless a stop is requested."""
    began, tokens, pace = time.perf_counter(), 0, 0.0
    while not task.validation_is_due(state):
        stopping.check()
        results = make_steps(steps, state, stopping)
        for result in results:
            if not result.finite:
                leave_out(steps, state, hooks, result)
            state.count(result)
            tokens += result.tokens
        pace = tokens / (time.perf_counter() - began)
        for hook in hooks:
            hook.on_step(state, Made(results, pace))

    with task.weights_for_use():
        score = task.validate(stopping.check)
        more = [hook.on_validation(state) for hook in hooks]
    kind = "epoch" if task.ends_epoch(state) else "validation"
    record = validation_record(state, kind, score, task.learning_rate(state.step - 1))
    record |= {"tokens_per_second": pace, "seconds": time.perf_counter() - began}
    for measured in more:
        record |= measured
    state.validated(record)
    for hook in hooks:
        hook.on_epoch(state, record)


def make_steps(steps: Steps, state: TrainingState, stopping: Stopping) -> list[Result]:
    """The next steps. If a signal to all processes ends the workers, that requests a stop."""
    try:
        return steps.run(state)
    except WorkerError as error:
        if stopping.wait_for_signal(0.5):  # it may arrive here later than at the workers
            raise StopRequested(stopping.reason) from error
        raise


def leave_out(steps: Steps, state: TrainingState, hooks: Sequence[Hook], result: Result) -> None:
    """Skip a step that is not finite, if a hook allows that."""
    if not any([hook.on_bad_step(state, result) for hook in hooks]):
        raise TrainingStopped(
            f"step {state.step + 1}: loss {result.loss}, gradient norm {result.grad_norm}"
        )
    steps.leave_out(state)


def finished(task: Task, state: TrainingState, hooks: Sequence[Hook] = ()) -> bool:
    """Whether nothing is left to do."""
    if task.validation_is_due(state) or not state.records:
        return False
    return task.over(state) or any(hook.enough(state) for hook in hooks)
