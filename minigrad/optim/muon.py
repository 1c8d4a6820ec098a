"""Muon for matrices, AdamW for everything else. The rules are on pages of `minigrad.ops`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.device import namespace_of
from minigrad.dtypes import widened
from minigrad.ops.muon import RMS, orthogonalized
from minigrad.optim.adamw import AdamW
from minigrad.tensor import Tensor


class Muon(AdamW):
    """AdamW in which groups with `orthogonal=True` are updated by Muon.

    The update rule, and where it comes from, is on the page `minigrad.ops.muon`.

    Args:
        params: parameters, or groups with settings of their own.
        lr, betas, eps, weight_decay: as for `AdamW`.
        momentum: μ.
        orthogonal: whether Muon updates the group; its parameters must be matrices.
        parts: matrices that lie one below the other in each parameter of the group (3 for packed
            queries, keys and values) and are made orthogonal one by one.

    Raises:
        ValueError: a setting is out of range, or a parameter of a Muon group is no matrix of
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
    ) -> None:
        own = {"momentum": momentum, "orthogonal": orthogonal, "parts": parts}
        super().__init__(params, lr, betas, eps, weight_decay, _more=own)

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        super()._check_settings(group)
        if not 0 <= group["momentum"] < 1:
            raise ValueError(f"Muon: momentum must be in [0, 1), not {group['momentum']}")
        for parameter in group["params"] if group["orthogonal"] else ():
            if parameter.ndim != 2 or parameter.shape[0] % group["parts"]:
                raise ValueError(
                    f"Muon: a parameter of shape {parameter.shape} is no matrix of "
                    f"{group['parts']} equal part(s); leave it to AdamW (orthogonal=False)"
                )

    def _state_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("step", "momentum_buffer") if group["orthogonal"] else super()._state_names(group)

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        if parameter in self.state:
            return self.state[parameter]
        if not self._group_of(parameter)["orthogonal"]:
            return super()._state_of(parameter)
        self.state[parameter] = {"step": 0, "momentum_buffer": widened(parameter.array) * 0}
        return self.state[parameter]

    def _update(self, group: dict[str, Any], members: list[Tensor]) -> None:
        if not group["orthogonal"]:
            super()._update(group, members)
            return
        momentum, decay = group["momentum"], group["lr"] * group["weight_decay"]
        by_shape: dict[tuple[int, ...], list[tuple[Tensor, Any]]] = {}
        for parameter in members:
            state = self._state_of(parameter)
            gradient = widened(parameter.grad.array)
            state["step"] += 1
            buffer = state["momentum_buffer"]
            buffer *= momentum
            buffer += (1 - momentum) * gradient
            ahead = momentum * buffer + (1 - momentum) * gradient
            by_shape.setdefault(parameter.shape, []).append((parameter, ahead))
        for (rows, columns), rows_of in by_shape.items():
            rows //= group["parts"]
            xp = namespace_of(rows_of[0][1])
            stacked = xp.stack([m for _, m in rows_of]).reshape(-1, rows, columns)
            steps = orthogonalized(xp, stacked).reshape(len(rows_of), -1, columns)
            steps *= group["lr"] * RMS * max(rows, columns) ** 0.5
            for (parameter, _), step in zip(rows_of, steps, strict=True):
                parameter.array[...] = widened(parameter.array) * (1 - decay) - step
