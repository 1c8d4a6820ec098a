"""Stochastic gradient descent. The update rule is on the page `minigrad.ops.sgd`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.device import namespace_of
from minigrad.dtypes import compute_dtype, widened
from minigrad.optim.optimizer import Optimizer
from minigrad.tensor import Tensor


class SGD(Optimizer):
    """Gradient descent with momentum, as `torch.optim.SGD`.

    Args:
        params: parameters, or groups with settings of their own.
        lr: learning rate.
        momentum: μ; 0 is plain gradient descent.
        dampening: share of the gradient left out of the velocity.
        weight_decay: λ of the penalty λ/2·‖p‖².
        nesterov: look ahead along the velocity.

    Raises:
        ValueError: a setting is out of range, or Nesterov without momentum.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        self._require_not_negative(group, "lr", "momentum", "weight_decay")
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov needs momentum > 0 and dampening = 0")

    def _state_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        if parameter not in self.state:
            dtype = compute_dtype(parameter.dtype)
            zeros = namespace_of(parameter.array).zeros_like(parameter.array, dtype=dtype)
            self.state[parameter] = {"momentum_buffer": zeros}
        return self.state[parameter]

    def _update(self, group: dict[str, Any], members: list[Tensor]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        for parameter in members:
            g = widened(parameter.grad.array)
            if group["weight_decay"]:
                g = g + group["weight_decay"] * widened(parameter.array)
            if momentum:
                first = parameter not in self.state
                velocity = self._state_of(parameter)["momentum_buffer"]
                velocity *= momentum
                velocity += g if first else (1 - group["dampening"]) * g
                g = g + momentum * velocity if group["nesterov"] else velocity
            parameter.array -= lr * g
