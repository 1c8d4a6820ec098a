"""What a hook may do, and when."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from tinyalpaca.training.state import Made, Record, Result, TrainingState


class Hook:
    """Does something besides training. Each method does nothing unless it is overridden."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Warn of a method whose name is nearly that of one which is called."""
        super().__init_subclass__(**options)
        own = [getattr(value, "__code__", None) for value in vars(cls).values()]
        used = {name for code in own if code for name in code.co_names}  # by the hook itself
        for name in vars(cls):
            if not name.startswith("on_") or name in used or hasattr(super(cls, cls), name):
                continue
            close = get_close_matches(name[3:], [called[3:] for called in _CALLED], 1, 0.87)
            meant = _ELSEWHERE.get(name, f"on_{close[0]}" if close else "")
            if meant:
                message = f"{cls.__name__}.{name} is never called by a training; did you mean"
                warnings.warn(f"{message} {meant}?", UserWarning, stacklevel=2)

    def on_start(self, state: TrainingState) -> None:
        """Before the first step, or before the first one of a resumed run."""

    def on_step(self, state: TrainingState, made: Made) -> None:
        """After a step; on a GPU, after several that were made at once."""

    def on_bad_step(self, state: TrainingState, result: Result) -> bool:
        """The step after `state` is not finite, and has changed nothing.

        Returns:
            Whether to skip it. If no hook returns True, training ends here.
        """
        return False

    def on_validation(self, state: TrainingState) -> Mapping[str, Any]:
        """Called while the model has the weights for use. Returns more values for the record.

        Nothing has been recorded yet. An exception here leaves the validation unmade.
        """
        return {}

    def on_epoch(self, state: TrainingState, record: Record) -> None:
        """After each validation: at the end of each epoch, or more often with `eval_every`."""

    def enough(self, state: TrainingState) -> bool:
        """Whether training shall end after this validation, before all steps have been made."""
        return False

    def on_stop(self, state: TrainingState, reason: str | None) -> None:
        """After the last step, or after a requested stop; `reason` is None if all is done."""

    def close(self) -> None:
        """At the very end, also after an error; called by the code that has made the hook."""


_CALLED = [name for name in vars(Hook) if name.startswith("on_")]
# What they are called elsewhere.
_ELSEWHERE = {
    **{"on_train_begin": "on_start", "on_train_start": "on_start", "on_train_end": "on_stop"},
    **{"on_epoch_end": "on_epoch", "on_batch_end": "on_step", "on_step_end": "on_step"},
}
