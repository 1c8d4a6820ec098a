"""Checks of the parameter groups that a user gives to an optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.errors import NoGradientWarning
from minigrad.tensor import Tensor


def listed(params: Any) -> Iterable[Any]:
    """Parameters as a user gives them, if one can iterate over them.

    Raises:
        TypeError: it is a model, or a method that was not called.
    """
    if not isinstance(params, Iterable):
        raise TypeError(
            f"what is needed is parameters, not a {type(params).__name__}: pass model.parameters()"
        )
    return params


def parameters_of(group: Mapping[str, Any], defaults: Iterable[str]) -> list[Tensor]:
    """The parameters of a group.

    Args:
        group: "params" (a tensor or several) and settings.
        defaults: the names of the optimizer's settings.

    Raises:
        TypeError: the group is not a dict, or "params" holds something other than tensors.
        ValueError: a parameter is not a leaf; a setting is unknown.
    """
    if not isinstance(group, Mapping):
        raise TypeError(f"a group of parameters is a dict, not a {type(group).__name__}")
    unknown = [k for k in group if k != "params" and k not in defaults]
    if unknown:
        raise ValueError(f"unknown setting {unknown[0]!r}; there are {sorted(defaults)}")
    if "params" not in group:
        raise ValueError(f"a group has no 'params', only {sorted(group)}")
    given = group["params"]
    if isinstance(given, (set, frozenset)):
        raise TypeError("the parameters of a group come in a list: a set has no order")
    parameters = [given] if isinstance(given, Tensor) else list(given)
    for parameter in parameters:
        if not isinstance(parameter, Tensor):
            raise TypeError(
                f"parameters must be tensors, not {type(parameter).__name__}: pass "
                "model.parameters(), or a list of tensors that require gradients"
            )
        if not parameter.is_leaf:
            raise ValueError("parameters must be leaves: results of ops are not kept")
    return parameters


def warn_of_nothing_to_do(parameters: Iterable[Tensor]) -> None:
    """Warn that a step changes nothing, because no parameter has a gradient, and say why."""
    if any(parameter.requires_grad for parameter in parameters):
        why = (
            "call loss.backward() before it, and zero_grad() after it or before the next backward()"
        )
    else:
        why = "all are frozen: none has requires_grad=True"
    # Python shows this warning once for each line that calls `step`.
    message = f"step() changes nothing, as no parameter has a gradient: {why}"
    warnings.warn(message, NoGradientWarning, stacklevel=3)
