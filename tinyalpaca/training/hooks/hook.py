"""What a hook may do, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyalpaca.training.state import Made, Record, Result, TrainingState


class Hook:
    """Does something besides training. Each method does nothing unless it is overridden."""

    def on_start(self, state: TrainingState) -> None:
        """Before the first step, or before the run goes on."""

    def on_step(self, state: TrainingState, made: Made) -> None:
        """After a step; on a GPU, after several that were made at once."""

    def on_bad_step(self, state: TrainingState, result: Result) -> bool:
        """The step after `state` is not finite, and has changed nothing.

        Returns:
            Whether it is to be left out; if no hook says so, training ends here.
        """
        return False

    def on_validation(self, state: TrainingState) -> Mapping[str, Any]:
        """While the model has the weights for use: what else to write down about them.

        Nothing has been written down yet. What is raised here leaves the validation undone.
        """
        return {}

    def on_epoch(self, state: TrainingState, record: Record) -> None:
        """After a validation, which is at each epoch's end, or more often if that is asked for."""

    def enough(self, state: TrainingState) -> bool:
        """Whether training shall end after this validation, before all steps have been made."""
        return False

    def on_stop(self, state: TrainingState, reason: str | None) -> None:
        """After the last step, or where somebody asked to stop; None if there is no more to do."""

    def close(self) -> None:
        """At the very end, whatever has happened; by the one who has made the hook."""
