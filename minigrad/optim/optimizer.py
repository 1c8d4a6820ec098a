"""What all optimizers share: parameter groups, gradients to forget, state to save."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from minigrad.device import device_of
from minigrad.graph import require_gradient
from minigrad.optim.saved_state import read_state
from minigrad.tensor import Tensor


class Optimizer:
    """Base class. An optimizer changes parameters in place; it never records a graph.

    Args:
        params: parameters, or groups: dicts with "params" and any setting that differs from the
            defaults.
        defaults: the settings of a group that does not give them.

    Attributes:
        param_groups: a dict a group: "params" and its settings. Schedules write "lr".
        state: for each parameter (the tensor itself) a dict of arrays and the step count.
        defaults: the settings of a group that does not give them.

    Raises:
        TypeError, ValueError: there are no parameters, or as for `add_param_group`.
    """

    def __init__(
        self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], defaults: dict[str, Any]
    ) -> None:
        if isinstance(params, (Tensor, Mapping, set, frozenset)):
            raise TypeError(
                "parameters come in a list (or as an iterator), or as a list of groups, not as a "
                f"{type(params).__name__}"
            )
        self.defaults = dict(defaults)
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        given: list[Any] = list(params)
        for group in given if given and isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)
        if not self.parameters():
            raise ValueError("the optimizer was given no parameters")

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Take on more parameters, which start without averages. Nothing is changed by an error.

        Args:
            group: "params" (a tensor or a list) and settings; those left out are the optimizer's.

        Raises:
            TypeError: the group is no dict, or holds something else than tensors.
            ValueError: a parameter is here already, or no leaf; a setting is unknown or out of
                range.
        """
        if not isinstance(group, Mapping):
            raise TypeError(f"a group of parameters is a dict, not a {type(group).__name__}")
        unknown = [k for k in group if k != "params" and k not in self.defaults]
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]!r}; there are {sorted(self.defaults)}")
        if "params" not in group:
            raise ValueError(f"a group has no 'params', only {sorted(group)}")
        given = group["params"]
        if isinstance(given, (set, frozenset)):
            raise TypeError("the parameters of a group come in a list: a set has no order")
        parameters = [given] if isinstance(given, Tensor) else list(given)
        for parameter in parameters:
            if not isinstance(parameter, Tensor):
                raise TypeError(f"parameters must be tensors, not {type(parameter).__name__}")
            if not parameter.is_leaf:
                raise ValueError("parameters must be leaves: results of ops are not kept")
        everything = [*self.parameters(), *parameters]
        if len({id(p) for p in everything}) != len(everything):
            raise ValueError("a parameter is given to the optimizer twice")
        full = {**self.defaults, **group, "params": parameters}
        self._check_settings(full)
        self.param_groups.append(full)

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
                parameter.grad.array[...] = 0
                parameter.grad.changed()

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group, members in self._members():
            with members[0].device.in_use():
                self._update(group, members)
            for parameter in members:
                parameter.changed()

    def _members(self) -> Iterator[tuple[dict[str, Any], list[Tensor]]]:
        """Each group with its parameters that have a gradient."""
        for group in self.param_groups:
            members = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in members:
                require_gradient(parameter)
            if members:
                yield group, members

    def _group_of(self, parameter: Tensor) -> dict[str, Any]:
        for group in self.param_groups:
            if any(p is parameter for p in group["params"]):
                return group
        raise ValueError(f"a parameter of shape {parameter.shape} is in no group")

    def _update(self, group: dict[str, Any], members: list[Tensor]) -> None:
        """Update some parameters of a group. Every optimizer has its own."""
        raise TypeError(f"{type(self).__name__} has no _update method")

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        """The state of a parameter, made if it is not there yet. Every optimizer has its own."""
        raise TypeError(f"{type(self).__name__} has no _state_of method")

    def _state_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """What the state of a parameter in such a group holds: "step" is a number, others arrays.

        Every optimizer has its own.
        """
        raise TypeError(f"{type(self).__name__} has no _state_names method")

    def state_dict(self) -> dict[str, Any]:
        """Settings, step counts and copies of the averages; arrays are NumPy's.

        `{"state": {number: {...}}, "param_groups": [{"lr": ..., "params": [numbers]}]}`

        Parameters have the numbers of their places, group by group.
        """
        groups, number = [], 0
        for group in self.param_groups:
            numbers = list(range(number, number + len(group["params"])))
            number += len(numbers)
            settings = {k: v for k, v in group.items() if k != "params"}
            groups.append({**settings, "params": numbers})
        state = {
            number: {k: _copied(v) for k, v in self.state[parameter].items()}
            for number, parameter in enumerate(self.parameters())
            if parameter in self.state
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Parameters are told apart by their places, as PyTorch.

        Nothing is changed unless everything fits.

        Raises:
            ValueError: it is the state of an optimizer of another kind, or its groups, settings or
                shapes do not fit this optimizer and its parameters.
        """
        settings, entries = read_state(
            saved,
            self.param_groups,
            name=type(self).__name__,
            needed=self.defaults,
            check_settings=self._check_settings,
            state_names=self._state_names,
        )
        for group, new in zip(self.param_groups, settings, strict=True):
            group.update(new)
        self.state = {}
        for parameter, entry in entries.items():
            self._fill_state(parameter, entry)

    def _fill_state(self, parameter: Tensor, values: Mapping[str, Any]) -> None:
        """Write values into the state of a parameter, which is made if it is not there yet."""
        own = self._state_of(parameter)
        for key, value in values.items():
            if key == "step":
                own[key] = value
            else:
                own[key][...] = parameter.device.asarray(value)


def _copied(value: Any) -> Any:
    if not hasattr(value, "shape"):
        return value
    return value.copy() if device_of(value).kind == "cpu" else value.get()
