"""A trainer's steps, made one by one: the host sees each loss before it goes on."""

from __future__ import annotations

from math import inf, isfinite
from typing import TYPE_CHECKING

from minigrad.parallel import WorkerError
from tinyalpaca.evaluation import Part
from tinyalpaca.training.bad_steps import handle_bad_step
from tinyalpaca.training.stopping import StopRequested

if TYPE_CHECKING:
    from tinyalpaca.trainer import Trainer


class HostLoop:
    """Makes a trainer's steps with its engine, on the CPU or on a GPU."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def run(self) -> list[tuple[float, int]]:
        """One update from the sampler's next batches. Returns its loss and its number of tokens.

        Raises:
            TrainingStopped: see `update`.
        """
        trainer = self.trainer
        trainer.sampler_before = trainer.sampler.state_dict()
        batches: list[Part] = []
        for indices in trainer.sampler:
            batches.append(trainer.dataset.batch_at(indices))
            if len(batches) == trainer.config.accumulate:
                break
        try:
            loss = self.update(batches)
        except BaseException as error:
            trainer.sampler.load_state_dict(trainer.sampler_before)  # the step has not happened
            # A signal to the whole process group ends the workers, perhaps before it gets here.
            if isinstance(error, WorkerError) and trainer.stopping.wait_for_signal(0.5):
                raise StopRequested(trainer.stopping.reason) from error
            raise
        return [(loss, sum(part[1].size for part in batches))]

    def update(self, batches: list[Part]) -> float:
        """One update of the weights from the mean gradient of all tokens of the batches.

        Returns:
            The loss, in nats per token.

        Raises:
            TrainingStopped: the loss or a gradient is not finite; the weights are unchanged.
        """
        trainer = self.trainer
        engine, config = trainer.engine, trainer.config
        count = sum(part[1].size for part in batches)
        loss, total = 0.0, None
        for number, part in enumerate(batches):
            loss += engine.gradients(part, scale=1 / count, key=trainer.first_key + number)
            if len(batches) > 1:
                total = engine.flat.grad + (0 if total is None else total)
        if total is not None:
            engine.flat.grad[...] = total
            engine.grad_norm = float(total @ total) ** 0.5
        trainer.grad_norm = engine.grad_norm
        good = isfinite(loss) and isfinite(trainer.grad_norm)
        if good:
            if (trainer.step + 1) % config.log_every == 0:
                trainer.ratios.remember()
            trainer.torn = True
            engine.update(trainer.optimizer, config.grad_clip or inf)
            trainer.torn = False
        else:
            handle_bad_step(trainer, batches, loss, trainer.grad_norm)
        trainer.count_step(loss, good=good)
        if trainer.average is not None:
            trainer.average.update(trainer.step)
        return loss

    def forget(self) -> None:
        """There is nothing to forget: each step begins where the trainer is."""
