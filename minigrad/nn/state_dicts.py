"""Whether a state dict fits a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from minigrad.tensor import Tensor


class LoadedKeys(NamedTuple):
    """The names that `Module.load_state_dict` did not find, and those that it did not expect."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def fitting(
    owner: str, own: Mapping[str, Tensor], state: Mapping[str, Any], strict: bool
) -> tuple[dict[str, Any], LoadedKeys]:
    """The arrays of `state` for the tensors of a module, and the names that only one side has.

    Raises:
        TypeError: the state is not a dict.
        ValueError: names every missing, unexpected and mis-shaped key, and every value that holds
            no numbers, at once. Missing and unexpected ones are allowed unless `strict`.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"a state dict is a dict of arrays by name, not a {type(state).__name__}: a file is "
            "read with minigrad.storage.load_safetensors(path) or load_torch(path)"
        )
    arrays = {name: _as_array(state[name]) for name in own if name in state}
    keys = LoadedKeys([k for k in own if k not in state], [k for k in state if k not in own])
    problems = []
    if strict:
        problems += [f"  missing: {name} {own[name].shape}" for name in keys.missing_keys]
        problems += [f"  unexpected: {name}" for name in keys.unexpected_keys]
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            problems.append(f"  no numbers: {name} is {array.dtype} in the state")
        elif array.shape != own[name].shape:
            problems.append(
                f"  wrong shape: {name} is {own[name].shape} here, {array.shape} in the state"
            )
    if problems:
        raise ValueError(f"the state does not fit {owner}:\n" + "\n".join(problems))
    return arrays, keys


def can_be_taken(array: Any, tensor: Tensor) -> bool:
    """Whether a tensor may use an array as it is."""
    return (
        isinstance(array, np.ndarray)
        and isinstance(tensor.array, np.ndarray)
        and array.dtype == tensor.dtype
        and array.flags.aligned
        and array.flags.writeable
    )


def put(own: Mapping[str, Any], arrays: Mapping[str, Any], assign: bool) -> None:
    """Copy arrays into tensors, or with `assign` use the arrays themselves where that is
    possible."""
    taken: dict[int, Any] = {}  # where each array that was taken begins, and by which tensor
    for name, array in arrays.items():
        tensor = own[name]
        if assign and can_be_taken(array, tensor):
            if taken.setdefault(array.ctypes.data, tensor) is tensor:
                tensor.move(array)
                continue
            tensor.move(np.array(array))  # two parameters must not share memory
        else:
            tensor.assign(array)


def _as_array(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.array
    return value if hasattr(value, "__cuda_array_interface__") else np.asarray(value)
