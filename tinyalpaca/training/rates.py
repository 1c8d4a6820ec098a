"""What the schedule of the learning rate does when a run goes on for longer than was planned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from tinyalpaca.config import TrainConfig
from tinyalpaca.console import Say
from tinyalpaca.training.training_parts import count_steps, make_schedule

if TYPE_CHECKING:
    from tinyalpaca.trainer import Trainer

JUMP = 2.0  # a rate that grows by more than this is worth a warning


def tell_rates(trainer: Trainer, before: TrainConfig, tell: Say, warn: Say) -> None:
    """Say how learning rates change with the number of steps, if that has changed.

    A schedule that falls to its end by the last step is stretched over the new number: a run that
    had come to its end begins again at the rate that the longer one has there.

    Args:
        before: the settings that the run has had until now.
    """
    planned = count_steps(before, trainer.steps_per_epoch)
    if planned == trainer.total_steps or not trainer.step:
        return
    base = trainer.schedule.base_lrs[0]
    optimizer = SimpleNamespace(param_groups=[{"lr": base}])
    old = make_schedule(optimizer, before, trainer.steps_per_epoch, planned)  # type: ignore[arg-type]
    last = old.lr_at(base, trainer.step - 1)
    following = trainer.schedule.lr_at(base, trainer.step)
    end = trainer.schedule.lr_at(base, max(trainer.step, trainer.total_steps - 1))
    line = (
        f"Learning rate: the {trainer.config.schedule} schedule is now for "
        f"{trainer.total_steps:,} steps instead of {planned:,}. It was {last:.2e} in the last "
        f"step, is {following:.2e} in the next and {end:.2e} at the end."
    )
    if following > JUMP * last:
        warn(
            f"Warning: {line} What was learned at low rates may be lost at first; for a small rate "
            "throughout, train anew with more epochs"
        )
    else:
        tell(line)
