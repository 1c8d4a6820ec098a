"""What all optimizers share: parameter groups, gradients to forget, state to save."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from minigrad.device import device_of
from minigrad.tensor import Tensor


class Optimizer:
    """Base class. An optimizer changes parameters in place; it never records a graph.

    Args:
        params: parameters, or groups: dicts with "params" and any setting that differs from the
            defaults.
        defaults: the settings of a group that does not give them.

    Attributes:
        param_groups: a dict a group: "params" and its settings. Schedules write "lr".
        state: for each parameter (by its number) a dict of arrays and the step count.

    Raises:
        ValueError: there are no parameters, or one stands in two places.
    """

    def __init__(
        self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], defaults: dict[str, Any]
    ) -> None:
        given: list[Any] = list(params)
        groups: list[Mapping[str, Any]] = (
            given if given and isinstance(given[0], Mapping) else [{"params": given}]
        )
        self.param_groups: list[dict[str, Any]] = []
        for group in groups:
            unknown = [k for k in group if k != "params" and k not in defaults]
            if unknown:
                raise ValueError(f"unknown setting {unknown[0]!r}; there are {sorted(defaults)}")
            full = {**defaults, **group}
            if "params" not in full:
                raise ValueError(f"a group has no 'params', only {sorted(group)}")
            full["params"] = list(full["params"])
            self._check_settings(full)
            self.param_groups.append(full)
        parameters = self.parameters()
        if not parameters:
            raise ValueError("the optimizer was given no parameters")
        if len({id(p) for p in parameters}) != len(parameters):
            raise ValueError("a parameter is given to the optimizer twice")
        for parameter in parameters:
            if not isinstance(parameter, Tensor):
                raise TypeError(f"parameters must be tensors, not {type(parameter).__name__}")
            if not parameter.is_leaf:
                raise ValueError("parameters must be leaves: results of ops are not kept")
        self.state: dict[int, dict[str, Any]] = {}

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError if a setting of the group is out of range."""

    def _require_not_negative(self, group: Mapping[str, Any], *names: str) -> None:
        for name in names:
            if not group[name] >= 0:
                raise ValueError(
                    f"{type(self).__name__}: {name} must not be negative, it is {group[name]}"
                )

    def parameters(self) -> list[Tensor]:
        """All parameters, group by group."""
        return [p for group in self.param_groups for p in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or with `set_to_none=False` fill those that are there with 0."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.data[...] = 0

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group, members in self._members():
            self._update(group, members)
            for _, parameter in members:
                parameter.changed()

    def _members(self) -> Iterator[tuple[dict[str, Any], list[tuple[int, Tensor]]]]:
        """Each group with its parameters that have a gradient, and their numbers."""
        number = 0
        for group in self.param_groups:
            members = []
            for parameter in group["params"]:
                if parameter.grad is not None:
                    members.append((number, parameter))
                number += 1
            if members:
                yield group, members

    def _update(self, group: dict[str, Any], members: list[tuple[int, Tensor]]) -> None:
        """Update the members (number, parameter) of a group. Every optimizer has its own."""
        raise TypeError(f"{type(self).__name__} has no _update method")

    def state_dict(self) -> dict[str, Any]:
        """Settings, step counts and copies of the averages; arrays are NumPy's.

        `{"state": {number: {...}}, "param_groups": [{"lr": ..., "params": [numbers]}]}`
        """
        groups, number = [], 0
        for group in self.param_groups:
            numbers = list(range(number, number + len(group["params"])))
            number += len(numbers)
            settings = {k: v for k, v in group.items() if k != "params"}
            groups.append({**settings, "params": numbers})
        state = {
            number: {k: _copied(v) for k, v in entry.items()}
            for number, entry in sorted(self.state.items())
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            ValueError: the groups or shapes do not fit this optimizer's parameters.
        """
        sizes = [len(group["params"]) for group in self.param_groups]
        saved_sizes = [len(group["params"]) for group in saved["param_groups"]]
        if sizes != saved_sizes:
            raise ValueError(
                f"the saved optimizer has groups of {saved_sizes} parameters, this one of {sizes}"
            )
        parameters = self.parameters()
        entries = {int(number): entry for number, entry in saved["state"].items()}
        for number in entries:
            if not 0 <= number < len(parameters):
                raise ValueError(
                    f"there is a saved state of parameter {number}, this one has {len(parameters)}"
                )
        for number, entry in entries.items():
            for key, value in entry.items():
                if isinstance(value, np.ndarray) and value.shape != parameters[number].shape:
                    raise ValueError(
                        f"saved {key!r} of parameter {number} has shape {value.shape}, the "
                        f"parameter {parameters[number].shape}"
                    )
        for group, saved_group in zip(self.param_groups, saved["param_groups"], strict=True):
            group.update({k: v for k, v in saved_group.items() if k != "params"})
            if "betas" in group:
                group["betas"] = tuple(group["betas"])
        self.state = {}
        for number, entry in entries.items():
            own = self._state_of(number, parameters[number])
            for key, value in entry.items():
                if isinstance(value, np.ndarray):
                    own[key][...] = parameters[number].device.asarray(value)
                else:
                    own[key] = value

    def _state_of(self, number: int, parameter: Tensor) -> dict[str, Any]:
        """The state of a parameter, made if it is not there yet. Every optimizer has its own."""
        raise TypeError(f"{type(self).__name__} has no _state_of method")


def _copied(value: Any) -> Any:
    if not hasattr(value, "shape"):
        return value
    return value.copy() if device_of(value).kind == "cpu" else value.get()
