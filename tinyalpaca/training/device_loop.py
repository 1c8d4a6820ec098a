"""A trainer's steps on a GPU, many at a time, between two looks at what came of them.

The host looks where a record or a checkpoint is due and at the end of an epoch. Until then it only
launches. It then counts what the device has done, so that between two looks the trainer, its
sampler, schedule and optimizer are as if the host had made each step itself.
"""

from __future__ import annotations

import copy
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minigrad.optim import AdamW
from tinyalpaca.evaluation import Part
from tinyalpaca.training.bad_steps import handle_bad_step
from tinyalpaca.training.device_steps import DeviceSteps, Progress
from tinyalpaca.training.device_steps import why_not as why_not_by_device
from tinyalpaca.training.host_loop import HostLoop
from tinyalpaca.training.training_parts import device_loss

if TYPE_CHECKING:
    from tinyalpaca.trainer import Trainer

MOST_MEMORY = 0.5  # share of a GPU's free memory that tokens may take
MOST_STEPS = 4096  # between two looks, whatever `log_every` is


class PlannedStep(NamedTuple):
    """The windows of each batch of a step, and the sampler's states before and after them."""

    batches: list[np.ndarray]
    before: dict[str, int]
    after: dict[str, int]

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(len(batch) for batch in self.batches)


def why_not(trainer: Trainer) -> str | None:
    """Why this trainer's steps need the host, or None if a GPU can make them on its own."""
    device = trainer.engine.flat.parameters[0].device
    if device.kind != "gpu":
        return "the model is on the CPU"
    needed = 4 * len(trainer.data.train) + 8 * trainer.sampler.count
    free, _ = device.xp.cuda.runtime.memGetInfo()
    if needed > MOST_MEMORY * free:
        sizes = f"{needed / 1e9:,.1f} GB of the {free / 1e9:,.1f} GB that are free on the GPU"
        return f"the training tokens would take {sizes}"
    return why_not_by_device(trainer.optimizer)


def check_tokens(tokens: np.ndarray, vocab_size: int) -> None:
    """Look at all tokens once, before they go where nobody looks at them.

    Raises:
        IndexError: one is not in the model's vocabulary.
    """
    lowest, highest = int(tokens.min()), int(tokens.max())
    if lowest < 0 or highest >= vocab_size:
        raise IndexError(
            f"the training tokens go from {lowest} to {highest}, but the model has a vocabulary of "
            f"{vocab_size}: it was made for another tokenizer"
        )


class DeviceLoop:
    """Makes a trainer's steps on its GPU.

    Args:
        trainer: at its beginning, or as it was restored.

    Raises:
        ValueError: `why_not(trainer)` has a reason.
        IndexError: a token is not in the model's vocabulary.
    """

    def __init__(self, trainer: Trainer) -> None:
        reason = why_not(trainer)
        if reason:
            raise ValueError(reason)
        assert isinstance(trainer.optimizer, AdamW)
        check_tokens(trainer.data.train, trainer.model.config.vocab_size)
        self.trainer, config = trainer, trainer.config
        self.ring = min(config.log_every, MOST_STEPS)
        schedule = trainer.schedule
        average = trainer.average
        self.steps = DeviceSteps(
            trainer.engine.flat,
            trainer.optimizer,
            device_loss(trainer.model, config),
            tokens=trainer.data.train,
            time=config.seq_len - 1,
            windows=trainer.sampler.count,
            rates=np.array(
                [
                    [schedule.lr_at(base, step) for step in range(trainer.total_steps)]
                    for base in schedule.base_lrs
                ]
            ),
            ring=self.ring,
            max_norm=config.grad_clip or inf,
            average=None if average is None else average.average,
            average_decay=config.ema,
            graph=config.graph,
        )
        self.plan: list[PlannedStep] = []  # what is left of the epoch that the device knows
        self.known = False

    def run(self) -> list[tuple[float, int]]:
        """Steps up to the next look. Returns the loss and the number of tokens of each.

        Raises:
            TrainingStopped: a step was not finite; see `handle_bad_step`.
        """
        trainer = self.trainer
        if not self.known or not self.plan:
            self._tell_device()
        count = min(self._until_look(), len(self.plan))
        trainer.torn = True  # until the host has counted what the device does
        for number, step in enumerate(self.plan[:count]):
            if number == count - 1 and (trainer.step + count) % trainer.config.log_every == 0:
                trainer.ratios.remember()
            self.steps.launch(step.rows)
        progress = self.steps.look()
        made = self._count(progress)
        trainer.torn = False
        if progress.halted:
            made.append(self._after_bad_step(*progress.of(progress.step)))
        return made

    def forget(self) -> None:
        """The trainer has been put elsewhere: tell the device anew before the next step."""
        self.known = False

    def _until_look(self) -> int:
        """How many steps may be launched before the host has to look."""
        trainer, config = self.trainer, self.trainer.config
        bounds = [trainer.total_steps - trainer.step, self.ring]
        for every in (config.log_every, config.save_every):
            if every:
                bounds.append(every - trainer.step % every)
        return min(bounds)

    def _tell_device(self) -> None:
        """The rest of this epoch's windows, and where the trainer is."""
        trainer = self.trainer
        sampler = copy.copy(trainer.sampler)
        before, batches = sampler.state_dict(), []
        self.plan = []
        for indices in sampler:
            batches.append(indices)
            over = sampler.epoch != trainer.sampler.epoch
            if len(batches) == trainer.config.accumulate or over:
                self.plan.append(PlannedStep(batches, before, sampler.state_dict()))
                before, batches = sampler.state_dict(), []
        rest = [indices for step in self.plan for indices in step.batches]
        self.steps.set_windows(trainer.dataset.starts_at(np.concatenate(rest)))
        updates = next(iter(trainer.optimizer.state.values()))["step"]
        self.steps.set_position(trainer.step, updates=updates, draw=trainer.first_key)
        self.known = True

    def _count(self, progress: Progress) -> list[tuple[float, int]]:
        """Take note of the steps that the device has made."""
        trainer, time = self.trainer, self.trainer.config.seq_len - 1
        made = []
        for _ in range(progress.step - trainer.step):
            step = self.plan.pop(0)
            loss, trainer.grad_norm = progress.of(trainer.step)
            trainer.sampler_before = step.before
            trainer.sampler.load_state_dict(step.after)
            trainer.count_step(loss)
            made.append((loss, sum(step.rows) * time))
        for state in trainer.optimizer.state.values():
            state["step"] += len(made)
        return made

    def _after_bad_step(self, loss: float, grad_norm: float) -> tuple[float, int]:
        """The step that is next is not finite: stop, or go on without it."""
        trainer, step = self.trainer, self.plan.pop(0)
        self.known = False
        trainer.grad_norm = grad_norm
        trainer.sampler_before = step.before
        trainer.sampler.load_state_dict(step.after)
        parts: list[Part] = [trainer.dataset.batch_at(indices) for indices in step.batches]
        try:
            handle_bad_step(trainer, parts, loss, grad_norm)
        except BaseException:
            trainer.sampler.load_state_dict(step.before)  # the step has not happened
            raise
        trainer.count_step(loss, good=False)
        if trainer.average is not None:
            trainer.average.update(trainer.step)
        return loss, sum(part[1].size for part in parts)


def make_loop(trainer: Trainer) -> HostLoop | DeviceLoop:
    """What makes this trainer's steps. If a GPU cannot make them on its own, that is said."""
    reason = why_not(trainer)
    if reason is None:
        return DeviceLoop(trainer)
    if trainer.parameters[0].device.kind == "gpu":
        trainer.warn(f"the host makes every step, there is no CUDA graph: {reason}")
    return HostLoop(trainer)
