"""Adam and AdamW. The pages of `minigrad.ops.updates` have the update rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.ops.updates.adam import adam
from minigrad.ops.updates.adamw import adamw
from minigrad.ops.updates.amsgrad import amsgrad
from minigrad.ops.updates.rule import Rule
from minigrad.optim.optimizer import Optimizer
from minigrad.tensor import Tensor


class AdamW(Optimizer):
    """Adam with decoupled weight decay, like `torch.optim.AdamW`.

    Args:
        params: parameters, or groups with settings of their own.
        lr: learning rate.
        betas: decay of the averages of the gradient and of its square.
        eps: added to the square root of the second average.
        weight_decay: λ; each step multiplies the parameters by 1 - lr·λ.
        amsgrad: divide by the root of the largest second average so far.
        maximize: move along the gradient instead of against it.

    Raises:
        ValueError: a setting is out of range.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        _more: Mapping[str, Any] | None = None,  # the settings that a subclass adds
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        switches = {"amsgrad": amsgrad, "maximize": maximize}
        super().__init__(params, {**defaults, **switches, **(_more or {})})

    def check_settings(self, group: Mapping[str, Any]) -> None:
        betas = group["betas"]
        if not (hasattr(betas, "__len__") and len(betas) == 2):
            raise TypeError(f"{type(self).__name__}: betas must be two numbers, not {betas!r}")
        if not all(0 <= beta < 1 for beta in betas):
            name = type(self).__name__
            raise ValueError(f"{name}: betas must be in [0, 1), not {group['betas']}")
        self.require_not_negative(group, "lr", "eps", "weight_decay")

    def rule_of(self, group: Mapping[str, Any]) -> type[Rule]:
        if group["amsgrad"]:
            return amsgrad
        # Without weight decay Adam equals AdamW, which has kernels.
        return adamw if self.decoupled or not group["weight_decay"] else adam

    def settings_of(self, group: Mapping[str, Any], step: int | None, new: bool) -> dict[str, Any]:
        settings = {name: group[name] for name in ("lr", "eps", "weight_decay")}
        settings["beta1"], settings["beta2"] = group["betas"]
        if group["amsgrad"]:
            settings["decoupled"] = self.decoupled
        return {**settings, "step": step}


class Adam(AdamW):
    """Adam, like `torch.optim.Adam`: weight decay is added to the gradient.

    Args:
        params, lr, betas, eps, amsgrad, maximize: as for `AdamW`.
        weight_decay: λ of the penalty λ/2·‖p‖².

    Raises:
        ValueError: a setting is out of range.
    """

    decoupled = False

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
