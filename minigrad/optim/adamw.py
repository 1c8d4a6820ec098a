"""AdamW. The update rule is on the page `minigrad.ops.adamw`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from minigrad.device import namespace_of
from minigrad.dtypes import compute_dtype, widened
from minigrad.kernels.cpu import adamw as kernel
from minigrad.kernels.cuda import adamw as cuda_kernel
from minigrad.kernels.cuda.compile import REAL
from minigrad.ops import adamw as textbook
from minigrad.optim.flat import MergedOnce
from minigrad.optim.optimizer import Optimizer
from minigrad.state import STATE
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
        *,
        _more: Mapping[str, Any] | None = None,  # the settings that a subclass adds
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, **(_more or {})})
        self._averages: dict[Tensor, tuple[Any, Any]] = {}
        self._merge: dict[Tensor, tuple[MergedOnce, ...]] = {}

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        if not all(0 <= beta < 1 for beta in group["betas"]):
            name = type(self).__name__
            raise ValueError(f"{name}: betas must be in [0, 1), not {group['betas']}")
        self._require_not_negative(group, "lr", "eps", "weight_decay")

    def place_state(self, allocate: Callable[[int, Any], Any]) -> None:
        """Move all averages to arrays of zeros that `allocate(size, dtype)` gives, or make them.

        For example in memory that is shared with other processes.
        """
        before, self.state = self.state, {}
        self._averages = {}
        for group in self.param_groups:
            self._place(group["params"], allocate)
        for parameter in self.parameters():
            self._fill_state(parameter, before.get(parameter, {}))

    def _place(self, parameters: list[Tensor], allocate: Callable[[int, Any], Any]) -> None:
        """Both averages of a group, whose members then lie side by side if they have one dtype."""
        if len({p.dtype for p in parameters}) > 1:
            for p in parameters:
                self._place([p], allocate)
            return
        if not parameters:
            return
        bounds = np.cumsum([0] + [p.size for p in parameters]).tolist()
        m, v = (allocate(bounds[-1], compute_dtype(parameters[0].dtype)) for _ in range(2))
        for i, p in enumerate(parameters):
            part = slice(bounds[i], bounds[i + 1])
            self._averages[p] = (m[part].reshape(p.shape), v[part].reshape(p.shape))

    def _state_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("step", "exp_avg", "exp_avg_sq")

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        if parameter not in self.state:
            if parameter not in self._averages:
                group = self._group_of(parameter)["params"]
                new = [p for p in group if p not in self._averages]
                self._place(new, namespace_of(parameter.array).zeros)
            m, v = self._averages[parameter]
            m[...] = 0
            v[...] = 0
            self.state[parameter] = {"step": 0, "exp_avg": m, "exp_avg_sq": v}
        return self.state[parameter]

    def _update(self, group: dict[str, Any], members: list[Tensor]) -> None:
        for update in self._updates(group, members, count=True):
            update.apply(slice(None))

    def updates(self, *, count: bool = True) -> list[Update]:
        """What `step` would do, as pieces that can be applied slice by slice, by several workers.

        Args:
            count: whether this is a step of its own, or another worker's view of the same one.
        """
        result: list[Update] = []
        for group, members in self._members():
            result += self._updates(group, members, count)
        return result

    def _updates(self, group: dict[str, Any], members: list[Tensor], count: bool) -> list[Update]:
        """One update if everything lies side by side in memory, otherwise one a parameter."""
        beta1, beta2 = group["betas"]
        settings = {
            "lr": group["lr"],
            "beta1": beta1,
            "beta2": beta2,
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
        }
        states = [self._state_of(p) for p in members]
        for state in states:
            state["step"] += count
        columns = (
            [p.array for p in members],
            [p.grad.array for p in members],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
        )
        if len({state["step"] for state in states}) == 1:
            merge = self._merge.setdefault(members[0], tuple(MergedOnce() for _ in columns))
            whole = [once(column) for once, column in zip(merge, columns, strict=True)]
            if all(flat is not None for flat in whole):
                return [Update(tuple(whole), {**settings, "step": states[0]["step"]})]
        return [
            Update(row, {**settings, "step": state["step"]})
            for row, state in zip(zip(*columns, strict=True), states, strict=True)
        ]


class Update(NamedTuple):
    """AdamW's rule for some arrays: parameters, gradients and both averages, of one shape."""

    arrays: tuple[Any, ...]
    settings: dict[str, Any]

    @property
    def size(self) -> int:
        return self.arrays[0].size

    def apply(self, part: slice, grad_scale: float = 1.0) -> None:
        """Update a slice of the flattened arrays in place; the gradient counts grad_scale times."""
        contiguous = all(a.flags.c_contiguous for a in self.arrays)
        p, g, m, v = (a.reshape(-1)[part] if contiguous else a for a in self.arrays)
        stored, p, g = p, widened(p), widened(g)  # what is not of float16 stays itself
        settings = {**self.settings, "grad_scale": grad_scale}
        if contiguous and isinstance(p, np.ndarray) and not STATE.textbook:
            kernel.adamw_step(p, g, m, v, **settings)
        elif contiguous and grad_scale == 1 and p.dtype.char in REAL and not STATE.textbook:
            cuda_kernel.adamw_step(p, g, m, v, **self.settings)
        else:
            p[...], m[...], v[...] = textbook.step(namespace_of(p), p, g, m, v, **settings)
        if p is not stored:
            stored[...] = p
