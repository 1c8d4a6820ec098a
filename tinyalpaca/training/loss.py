"""The loss that a task minimizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import nn
from minigrad.device import device_of
from minigrad.parallel import MICRO_KEYS
from tinyalpaca.config import TrainConfig
from tinyalpaca.evaluation import summed_loss
from tinyalpaca.training.state import Part

LossFunction = Callable[[nn.Module, Any, Any], mg.Tensor]  # model, inputs, targets -> summed loss


def own_seed(part: int) -> int:
    """A change of the seed of dropout on a GPU, if several processes share a batch.

    Args:
        part: the number of a process's part; the first has the masks of a single process.
    """
    return part << 40


class Loss:
    """The summed loss of a micro-batch, in training and in validation.

    Dropout masks depend only on the seed and the key. On a GPU they are drawn there, from the
    number of the batch in the run.

    Args:
        model: with `rng`, a `minigrad.Generator`, if it has dropout.
        config: for the seed and the smoothing of labels.
        function: maps the model, inputs and targets (B, T) to the *sum* of their losses;
            `tinyalpaca.evaluation.summed_loss` if left out.
    """

    model: nn.Module
    function: LossFunction | None
    seed: int
    label_smoothing: float

    def __init__(
        self, model: nn.Module, config: TrainConfig, function: LossFunction | None = None
    ) -> None:
        self.model, self.function = model, function
        self.seed, self.label_smoothing = config.seed, config.label_smoothing

    def require_sum(self, once: Part, twice: Part) -> None:
        """Raise unless a function of a user returns a sum, and not a mean, which is too small.

        Args:
            once, twice: a window, and the same window as two rows.

        Raises:
            TypeError: it returns something else than a tensor of one number.
            ValueError: two rows have no larger loss than one.
        """
        results = []
        with mg.no_grad():
            for part in (once, twice):
                result = self.evaluation(part)
                if not isinstance(result, mg.Tensor) or result.size != 1:
                    what = f"of shape {result.shape}" if isinstance(result, mg.Tensor) else ""
                    raise TypeError(
                        "loss must return a Tensor of one number, the sum of all losses, not a "
                        f"{type(result).__name__} {what}".rstrip()
                    )
                results.append(float(result))
        alone, both = results
        if alone != 0 and abs(both - alone) < 1e-6 * abs(alone):
            raise ValueError(
                f"loss gives {alone:.4g} for a window and for the same window twice, as a mean "
                'does. It must return the sum, as cross_entropy(..., reduction="sum") does.'
            )

    def training(self, part: Part, key: int) -> mg.Tensor:
        """With dropout, from the key of a micro-batch."""
        x, y = part
        if not isinstance(x, np.ndarray):
            number = np.array([key // MICRO_KEYS % 2**32], np.uint32)
            place, part_number = device_of(x).asarray(number), key % MICRO_KEYS
            own_masks = (own_seed(part_number),) if part_number else ()
            return self.on_device(x, y, place, 0, *own_masks)
        rng = getattr(self.model, "rng", None)
        if rng is None:
            return self._summed(x, y)
        with rng.seeded(self.seed, key):
            return self._summed(x, y)

    def on_device(self, x: Any, y: Any, draw: Any, ahead: int, more: int = 0) -> mg.Tensor:
        """As `training`, with masks that are drawn on the GPU.

        Args:
            more: changes the seed, so that other masks are drawn.
        """
        rng = getattr(self.model, "rng", None)
        if rng is None:
            return self._summed(x, y)
        with rng.seeded_on_device(self.seed ^ more, draw, ahead):
            return self._summed(x, y)

    def evaluation(self, part: Part, key: int = 0) -> mg.Tensor:
        """Without dropout or smoothing, whatever the key."""
        if self.model.training:
            self.model.eval()
        x, y = part
        return self._of(x, y, 0.0)

    def _summed(self, x: Any, y: Any) -> mg.Tensor:
        if not self.model.training:
            self.model.train()
        return self._of(x, y, self.label_smoothing)

    def _of(self, x: Any, y: Any, label_smoothing: float) -> mg.Tensor:
        if self.function is not None:
            return self.function(self.model, x, y)
        return summed_loss(self.model, x, y, label_smoothing)
