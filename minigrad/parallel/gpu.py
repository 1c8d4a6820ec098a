"""The engine of a single device that computes a whole batch at once, such as a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minigrad.autograd import write_gradients
from minigrad.device import device_of
from minigrad.optim.clip import clip_scale, gradient_norm
from minigrad.optim.flat import FlatParameters
from minigrad.optim.optimizer import Optimizer
from minigrad.parallel.capture import Captured
from minigrad.parallel.engine import MICRO_KEYS, Loss, Part, in_the_order_of
from minigrad.state import no_grad
from minigrad.tensor import Tensor


class WholeBatch:
    """Computes losses and gradients of whole batches where the parameters are.

    Args:
        parameters: the model's; they are moved into one flat buffer, `flat`.
        train_loss, evaluate_loss: as for `Workers`.
        optimizer: the one that `update` will step, if any: its averages are in flat memory too.
        graph: whether `evaluate` captures CUDA graphs.

    Attributes:
        flat: the parameters and, after `gradients`, their gradients.
        grad_norm: the 2-norm of all gradients, after `gradients`.
    """

    survives = False  # after an error of the device nothing on it can be relied on

    def __init__(
        self,
        parameters: Sequence[Tensor],
        train_loss: Loss,
        evaluate_loss: Loss,
        *,
        optimizer: Optimizer | None = None,
        graph: bool = False,
    ) -> None:
        if optimizer is None:
            self.flat: FlatParameters = FlatParameters(parameters)
        else:
            self.flat = FlatParameters(in_the_order_of(optimizer, parameters))
            optimizer.flatten(self.flat)
        self.grad_norm: float = 0.0
        self._device = device_of(self.flat.array)
        self._train_loss, self._evaluate_loss = train_loss, evaluate_loss
        self._graph = graph and self._device.kind == "gpu"
        self._evaluations: dict[tuple[tuple[int, ...], ...], tuple[Part, Captured]] = {}

    def gradients(self, arrays: Part, *, scale: float, key: int = 0, first: int = 0) -> float:
        """Write the gradient of `scale` times the summed loss to `flat.grad`; returns that loss.

        Args:
            first: is added to the loss's key, if these arrays are a part of a batch.
        """
        with self._device.in_use():
            loss = self._train_loss(self.moved(arrays), key * MICRO_KEYS + first)
            places = self.flat.views(self.flat.grad)
            write_gradients(loss, self.flat.parameters, places, scale=scale)
            self.flat.attach_grad()
            self.grad_norm = gradient_norm([self.flat.grad])
            return float(loss.item()) * scale

    def update(self, optimizer: Optimizer, max_norm: float = float("inf")) -> None:
        """Clip the gradients of the last `gradients` to `max_norm` and step the optimizer."""
        with self._device.in_use():
            optimizer.step(clip_scale(self.grad_norm, max_norm))

    def micro_batches(self, arrays: Part, key: int = 0) -> Iterator[tuple[Part, int]]:
        """The batch itself, on the device, with the key of its loss."""
        yield self.moved(arrays), key * MICRO_KEYS

    def evaluate(self, arrays: Part) -> Any:
        """The summed loss of a batch, without gradients: one number, which stays on the GPU.

        `float(...)` of it, or of a sum of several, waits for the GPU.
        """
        if self._device.kind == "cpu":
            return float(self._loss(arrays))
        with self._device.in_use():
            return self._evaluate_on_gpu(arrays)

    def _evaluate_on_gpu(self, arrays: Part) -> Any:
        key = tuple(array.shape for array in arrays)
        if key not in self._evaluations:
            places = self.moved(arrays)
            evaluation = Captured(
                lambda: self._loss(places),
                [],
                label=f"validation of batches of shape {key[0]}",
                enabled=self._graph,
            )
            self._evaluations[key] = places, evaluation
        places, evaluation = self._evaluations[key]
        for place, array in zip(places, arrays, strict=True):
            place[...] = self._device.asarray(array)
        # A copy, as the next replay overwrites it; and sums of many batches want the precision.
        return evaluation().astype(np.float64)

    def moved(self, arrays: Part) -> Part:
        """The arrays on the device of the parameters."""
        return tuple(self._device.asarray(a) for a in arrays)

    def close(self) -> None:
        """Nothing to end."""

    def _loss(self, arrays: Part) -> Any:
        with no_grad():
            return self._evaluate_loss(arrays, 0).array
