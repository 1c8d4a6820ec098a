"""RMSprop. The page `minigrad.ops.updates.rmsprop` has the update rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from minigrad.ops.updates.rmsprop import rmsprop
from minigrad.ops.updates.rule import Rule
from minigrad.optim.optimizer import Optimizer
from minigrad.tensor import Tensor


class RMSprop(Optimizer):
    """The gradient divided by the root of its mean square, like `torch.optim.RMSprop`.

    Args:
        params: parameters, or groups with settings of their own.
        lr: learning rate.
        alpha: decay of the average of the squared gradient.
        eps: added to the root of that average.
        weight_decay: λ of the penalty λ/2·‖p‖².
        momentum: μ; with 0 there is no velocity.
        centered: divide by the root of the gradient's variance instead of its mean square.
        maximize: move along the gradient instead of against it.

    Raises:
        ValueError: a setting is out of range.
    """

    rule: ClassVar[type[Rule]] = rmsprop

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_settings(self, group: Mapping[str, Any]) -> None:
        self.require_not_negative(group, "lr", "alpha", "eps", "weight_decay", "momentum")

    def state_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        mean = ("grad_avg",) if group["centered"] else ()
        velocity = ("momentum_buffer",) if group["momentum"] else ()
        return (*self.rule.state, *mean, *velocity)

    def settings_of(self, group: Mapping[str, Any], step: int | None, new: bool) -> dict[str, Any]:
        return super().settings_of(group, None, new)  # the rule is the same at each step
