"""Ending a run that no longer improves."""

from __future__ import annotations

from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.state import TrainingState


class EarlyStop(Hook):
    """Ends training after `patience` validations without a better one."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def enough(self, state: TrainingState) -> bool:
        return state.since_best >= self.patience
