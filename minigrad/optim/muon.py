"""Muon for matrices, AdamW for all other parameters. Their pages are in `minigrad.ops.updates`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.ops.updates.adamw import adamw
from minigrad.ops.updates.muon import adamw_beside, muon
from minigrad.ops.updates.rule import Rule
from minigrad.optim.adam import AdamW
from minigrad.tensor import Tensor


class Muon(AdamW):
    """AdamW that updates groups with `orthogonal=True` by Muon.

    The page `minigrad.ops.updates.muon` has the update rule and its source.

    Args:
        params: parameters, or groups with settings of their own.
        lr, betas, eps, weight_decay: as for `AdamW`.
        momentum: μ.
        orthogonal: whether Muon updates the group; its parameters must be matrices.
        parts: the number of matrices that are stacked in each parameter of the group (3 for packed
            queries, keys and values). Each is made orthogonal separately.
        maximize: move along the gradient instead of against it.

    Raises:
        ValueError: a setting is out of range, or a parameter of a Muon group is not a matrix with
            `parts` equal parts.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
        orthogonal: bool = False,
        parts: int = 1,
        *,
        maximize: bool = False,
    ) -> None:
        own = {"momentum": momentum, "orthogonal": orthogonal, "parts": parts}
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize, _more=own)

    def check_settings(self, group: Mapping[str, Any]) -> None:
        super().check_settings(group)
        if not 0 <= group["momentum"] < 1:
            raise ValueError(f"Muon: momentum must be in [0, 1), not {group['momentum']}")
        for parameter in group["params"] if group["orthogonal"] else ():
            if parameter.ndim != 2 or parameter.shape[0] % group["parts"]:
                raise ValueError(
                    f"Muon: a parameter of shape {parameter.shape} is no matrix of "
                    f"{group['parts']} equal part(s); leave it to AdamW (orthogonal=False)"
                )

    def rule_of(self, group: Mapping[str, Any]) -> type[Rule]:
        if group["orthogonal"]:
            return muon
        rule = super().rule_of(group)
        return adamw_beside if rule is adamw else rule

    def settings_of(self, group: Mapping[str, Any], step: int | None, new: bool) -> dict[str, Any]:
        if not group["orthogonal"]:
            return super().settings_of(group, step, new)
        return {name: group[name] for name in ("lr", "momentum", "weight_decay", "parts")}
