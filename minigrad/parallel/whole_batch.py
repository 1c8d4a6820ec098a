"""The interface of `Workers` for a single device that takes a batch whole, as a GPU does."""

from __future__ import annotations

from collections.abc import Sequence

from minigrad.device import device_of
from minigrad.op import no_grad
from minigrad.optim.clip import clip_grad_norm_, clip_scale
from minigrad.optim.flat import FlatParameters
from minigrad.optim.optimizer import Optimizer
from minigrad.parallel.workers import Loss, Part
from minigrad.tensor import Tensor


class WholeBatch:
    """Computes losses and gradients of whole batches where the parameters are.

    Args:
        parameters: the model's; they are moved into one flat buffer, `flat`.
        train_loss, evaluate_loss: as for `Workers`.

    Attributes:
        flat: the parameters and, after `gradients`, their gradients.
        grad_norm: the 2-norm of all gradients, after `gradients`.
    """

    def __init__(self, parameters: Sequence[Tensor], train_loss: Loss, evaluate_loss: Loss) -> None:
        self.flat = FlatParameters(parameters)
        self.grad_norm = 0.0
        self._device = device_of(self.flat.data)
        self._train_loss, self._evaluate_loss = train_loss, evaluate_loss

    def gradients(self, arrays: Part, *, scale: float, key: int = 0) -> float:
        """Write the gradient of `scale` times the summed loss to `flat.grad`; returns that loss."""
        self.flat.zero_grad()
        loss = self._train_loss(self._moved(arrays), key * 2**20) * scale
        loss.backward()
        self.grad_norm = clip_grad_norm_(self.flat.parameters, float("inf"))
        return float(loss.item())

    def update(self, optimizer: Optimizer, max_norm: float = float("inf")) -> None:
        """Clip the gradients of the last `gradients` to `max_norm` and step the optimizer."""
        self.flat.grad *= clip_scale(self.grad_norm, max_norm)
        optimizer.step()

    def evaluate(self, arrays: Part) -> float:
        """The summed loss of a batch, without gradients."""
        with no_grad():
            return float(self._evaluate_loss(self._moved(arrays), 0).item())

    def close(self) -> None:
        """Nothing to end."""

    def _moved(self, arrays: Part) -> Part:
        return tuple(self._device.asarray(a) for a in arrays)
