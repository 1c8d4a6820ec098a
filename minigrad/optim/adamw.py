"""AdamW. The update rule is on the page `minigrad.ops.adamw`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.device import namespace_of
from minigrad.kernels.cpu import adamw as kernel
from minigrad.op import STATE
from minigrad.ops import adamw as textbook
from minigrad.optim.flat import merged
from minigrad.optim.optimizer import Optimizer
from minigrad.tensor import Tensor


class AdamW(Optimizer):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`.

    Args:
        params: parameters, or groups with settings of their own.
        lr: learning rate.
        betas: decay of the averages of the gradient and of its square.
        eps: added to the root of the second.
        weight_decay: share of a parameter taken off a step, times lr.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"AdamW: betas must be in [0, 1), not {betas}")
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if value < 0:
                raise ValueError(f"AdamW: {name} must not be negative, it is {value}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self._averages: dict[int, tuple[Any, Any]] = {}

    def _state_of(self, number: int, parameter: Tensor) -> dict[str, Any]:
        if number not in self.state:
            m, v = self._places(number)
            self.state[number] = {"step": 0, "exp_avg": m, "exp_avg_sq": v}
        return self.state[number]

    def _places(self, number: int) -> tuple[Any, Any]:
        """Zeros for both averages, side by side in memory for all parameters of a group."""
        if number not in self._averages:
            first = 0
            for group in self.param_groups:
                parameters = group["params"]
                if first <= number < first + len(parameters):
                    break
                first += len(parameters)
            xp, dtype = namespace_of(parameters[0].data), parameters[0].dtype
            bounds = np.cumsum([0] + [p.size for p in parameters]).tolist()
            m, v = xp.zeros(bounds[-1], dtype), xp.zeros(bounds[-1], dtype)
            for i, p in enumerate(parameters):
                part = slice(bounds[i], bounds[i + 1])
                self._averages[first + i] = (m[part].reshape(p.shape), v[part].reshape(p.shape))
        m, v = self._averages[number]
        m[...] = 0
        v[...] = 0
        return m, v

    def _update(self, group: dict[str, Any], members: list[tuple[int, Tensor]]) -> None:
        beta1, beta2 = group["betas"]
        settings = {
            "lr": group["lr"],
            "beta1": beta1,
            "beta2": beta2,
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
        }
        states = [self._state_of(number, p) for number, p in members]
        for state in states:
            state["step"] += 1
        columns = (
            [p.data for _, p in members],
            [p.grad.data for _, p in members],  # type: ignore[union-attr]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
        )
        if len({state["step"] for state in states}) == 1:
            whole = [merged(column) for column in columns]
            if all(flat is not None for flat in whole):
                _step(whole, states[0]["step"], settings)
                return
        for row, state in zip(zip(*columns, strict=True), states, strict=True):
            _step(row, state["step"], settings)


def _step(arrays: Any, step: int, settings: dict[str, float]) -> None:
    p, g, m, v = arrays
    flat = all(isinstance(a, np.ndarray) and a.flags.c_contiguous for a in arrays)
    if flat and not STATE.textbook:
        kernel.adamw_step(*[a.reshape(-1) for a in arrays], step=step, **settings)
    else:
        p[...], m[...], v[...] = textbook.step(namespace_of(p), p, g, m, v, step=step, **settings)
