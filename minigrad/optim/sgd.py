"""Stochastic gradient descent. The page `minigrad.ops.updates.sgd` has the update rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from minigrad.ops.updates.rule import Rule
from minigrad.ops.updates.sgd import sgd
from minigrad.optim.optimizer import Optimizer
from minigrad.tensor import Tensor


class SGD(Optimizer):
    """Gradient descent with momentum, like `torch.optim.SGD`.

    Args:
        params: parameters, or groups with settings of their own.
        lr: learning rate.
        momentum: μ; 0 is plain gradient descent.
        dampening: τ; the velocity gets 1 - τ times the gradient.
        weight_decay: λ of the penalty λ/2·‖p‖².
        nesterov: use Nesterov's momentum.
        maximize: move along the gradient instead of against it.

    Raises:
        ValueError: a setting is out of range, or `nesterov` is set without momentum.
    """

    rule: ClassVar[type[Rule]] = sgd

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_settings(self, group: Mapping[str, Any]) -> None:
        self.require_not_negative(group, "lr", "momentum", "weight_decay")
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov needs momentum > 0 and dampening = 0")

    def state_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def settings_of(self, group: Mapping[str, Any], step: int | None, new: bool) -> dict[str, Any]:
        settings = super().settings_of(group, step, new)
        return {**settings, "dampening": 0.0} if new else settings
