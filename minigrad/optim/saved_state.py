"""Reading the saved state of an optimizer: all of it is checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.device import CPU
from minigrad.tensor import Tensor

if TYPE_CHECKING:
    from minigrad.optim.optimizer import Optimizer

# Settings of PyTorch's optimizers that say how, not what, they compute.
_HOW = {"foreach", "fused", "capturable", "differentiable", "initial_lr", "param_names"}
_HOW |= {"decoupled_weight_decay"}


def read_state(
    optimizer: Optimizer, saved: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[Tensor, dict[str, Any]]]:
    """The settings of each group, and for each parameter what its state will hold.

    Raises:
        ValueError: what is saved does not fit the optimizer.
    """
    name = type(optimizer).__name__
    missing = [key for key in ("state", "param_groups") if key not in saved]
    if missing:
        raise ValueError(
            f"the saved optimizer has no {missing[0]!r}, only {sorted(map(str, saved))}"
        )
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    saved_sizes = [len(group["params"]) for group in saved["param_groups"]]
    if sizes != saved_sizes:
        raise ValueError(
            f"the saved optimizer has groups of {saved_sizes} parameters, this one of {sizes}"
        )
    settings = [
        _settings(optimizer, group, saved_group)
        for group, saved_group in zip(optimizer.param_groups, saved["param_groups"], strict=True)
    ]
    numbers = [int(number) for group in saved["param_groups"] for number in group["params"]]
    parameters = optimizer.parameters()
    place_of = {number: place for place, number in enumerate(numbers)}
    wanted = [
        optimizer._state_names({**group, **new})
        for group, new in zip(optimizer.param_groups, settings, strict=True)
        for _ in group["params"]
    ]
    entries: dict[Tensor, dict[str, Any]] = {}
    for number, entry in saved["state"].items():
        if int(number) not in place_of:
            raise ValueError(
                f"there is a saved state of parameter {number}, this one has {len(parameters)}"
            )
        place = place_of[int(number)]
        given = {key: value for key, value in entry.items() if value is not None}
        if not given:  # as PyTorch's SGD before its first momentum
            continue
        if set(given) != set(wanted[place]):
            raise ValueError(
                f"this is the state of another kind of optimizer: of parameter {number} it holds "
                f"{sorted(given)}, {name} keeps {sorted(wanted[place])}"
            )
        entries[parameters[place]] = {
            key: _number(number, value) if key == "step" else _array(number, key, value, parameter)
            for key, value in given.items()
            for parameter in [parameters[place]]
        }
    return settings, entries


def _settings(
    optimizer: Optimizer, group: Mapping[str, Any], saved: Mapping[str, Any]
) -> dict[str, Any]:
    name = type(optimizer).__name__
    missing = sorted(key for key in optimizer.defaults if key not in saved)
    if missing:
        raise ValueError(
            f"this is the state of another kind of optimizer: a group has no {missing[0]!r}, which "
            f"{name} needs"
        )
    new = {key: value for key, value in saved.items() if key != "params"}
    for key, value in new.items():
        if key not in group and key not in _HOW and not (value is None or value is False):
            raise ValueError(
                f"this is the state of another kind of optimizer: {name} has no setting {key!r}, "
                f"which is {value!r}"
            )
    if "betas" in new:
        new["betas"] = tuple(new["betas"])
    optimizer._check_settings({**group, **new})
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
