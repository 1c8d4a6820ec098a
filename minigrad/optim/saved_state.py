"""Writes and reads an optimizer's state. All of it is checked before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minigrad.device import CPU, device_of
from minigrad.tensor import Tensor

# Settings of PyTorch's optimizers that do not change what they compute, only how.
_HOW = {"foreach", "fused", "capturable", "differentiable", "initial_lr", "param_names"}
_HOW |= {"decoupled_weight_decay"}


def written_state(
    groups: Sequence[Mapping[str, Any]],
    state: Mapping[Tensor, Mapping[str, Any]],
    state_names: Callable[[Mapping[str, Any]], Iterable[str]],
) -> dict[str, Any]:
    """The result of `Optimizer.state_dict`, from its groups and state."""
    entries: dict[int, dict[str, Any]] = {}
    settings: list[dict[str, Any]] = []
    number = 0
    for group in groups:
        names, numbers = state_names(group), []
        for parameter in group["params"]:
            kept = state.get(parameter, {})
            entry = {name: _copied(kept[name]) for name in names if name in kept}
            if entry:
                entries[number] = entry
            numbers.append(number)
            number += 1
        settings.append({**{k: v for k, v in group.items() if k != "params"}, "params": numbers})
    return {"state": entries, "param_groups": settings}


def _copied(value: Any) -> Any:
    if not hasattr(value, "shape"):
        return value
    return value.copy() if device_of(value).kind == "cpu" else value.get()


def read_state(
    saved: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    *,
    name: str,
    needed: Iterable[str],
    check_settings: Callable[[Mapping[str, Any]], None],
    state_names: Callable[[Mapping[str, Any]], Iterable[str]],
) -> tuple[list[dict[str, Any]], dict[Tensor, dict[str, Any]]]:
    """The settings of each group and the state of each parameter, checked.

    Args:
        saved: the result of `Optimizer.state_dict`.
        groups: the optimizer's groups.
        name: the optimizer's name in messages.
        needed: the settings that every group has.
        check_settings: raises if a setting of a group is out of range.
        state_names: the names of the state of a group's parameters.

    Raises:
        ValueError: the saved state does not fit the optimizer.
    """
    missing = [key for key in ("state", "param_groups") if key not in saved]
    if missing:
        raise ValueError(
            f"the saved optimizer has no {missing[0]!r}, only {sorted(map(str, saved))}"
        )
    sizes = [len(group["params"]) for group in groups]
    saved_sizes = [len(group["params"]) for group in saved["param_groups"]]
    if sizes != saved_sizes:
        raise ValueError(
            f"the saved optimizer has groups of {saved_sizes} parameters, this one of {sizes}"
        )
    settings = [
        _settings(name, needed, group, saved_group)
        for group, saved_group in zip(groups, saved["param_groups"], strict=True)
    ]
    both = [{**group, **new} for group, new in zip(groups, settings, strict=True)]
    for group in both:
        check_settings(group)
    numbers = [int(number) for group in saved["param_groups"] for number in group["params"]]
    parameters = [parameter for group in groups for parameter in group["params"]]
    place_of = {number: place for place, number in enumerate(numbers)}
    wanted = [set(state_names(group)) for group in both for _ in group["params"]]
    entries: dict[Tensor, dict[str, Any]] = {}
    for number, entry in saved["state"].items():
        if int(number) not in place_of:
            raise ValueError(
                f"there is a saved state of parameter {number}, this one has {len(parameters)}"
            )
        place = place_of[int(number)]
        given = {key: value for key, value in entry.items() if value is not None}
        if not given:  # PyTorch's SGD saves such entries without momentum
            continue
        if set(given) != wanted[place]:
            raise ValueError(
                f"this is the state of another kind of optimizer: of parameter {number} it holds "
                f"{sorted(given)}, {name} keeps {sorted(wanted[place])}"
            )
        parameter = parameters[place]
        entries[parameter] = {
            key: _number(number, value) if key == "step" else _array(number, key, value, parameter)
            for key, value in given.items()
        }
    return settings, entries


def _settings(
    name: str, needed: Iterable[str], group: Mapping[str, Any], saved: Mapping[str, Any]
) -> dict[str, Any]:
    absent = [key for key in needed if key not in saved]
    missing = sorted(key for key in absent if not isinstance(group[key], bool))
    if missing:
        raise ValueError(
            f"this is the state of another kind of optimizer: a group has no {missing[0]!r}, which "
            f"{name} needs"
        )
    new = {key: value for key, value in saved.items() if key != "params"}
    new |= {key: False for key in absent}  # switches of later versions: off when this was saved
    for key, value in new.items():
        if key not in group and key not in _HOW and not (value is None or value is False):
            raise ValueError(
                f"this is the state of another kind of optimizer: {name} has no setting {key!r}, "
                f"which is {value!r}"
            )
    if "betas" in new:
        new["betas"] = tuple(new["betas"])
    return new


def _number(number: Any, value: Any) -> int:
    step = np.asarray(_host(value))
    if step.size != 1 or step.dtype.kind not in "iuf" or step.item() < 0 or step.item() % 1:
        raise ValueError(f"saved 'step' of parameter {number} is no count: {value!r:.60}")
    return int(step.item())


def _array(number: Any, key: str, value: Any, parameter: Tensor) -> np.ndarray:
    array = np.asarray(_host(value))
    if array.dtype.kind not in "fiu":
        raise ValueError(f"saved {key!r} of parameter {number} holds no numbers: {value!r:.60}")
    if array.shape != parameter.shape:
        raise ValueError(
            f"saved {key!r} of parameter {number} has shape {array.shape}, the parameter "
            f"{parameter.shape}"
        )
    return array


def _host(value: Any) -> Any:
    return CPU.asarray(value.array if isinstance(value, Tensor) else value)
