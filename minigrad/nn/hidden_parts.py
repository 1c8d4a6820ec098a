"""Finding modules and parameters in plain lists, where they would not be trained."""

from __future__ import annotations

import warnings
from collections import UserDict, UserList, deque
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

_SIMPLE = frozenset({bool, float, int, str, type(None)})  # contain nothing; recognized quickly
_MAPPINGS = (dict, UserDict, MappingProxyType)
_COLLECTIONS = (list, tuple, set, frozenset, deque, UserList)


def require_nothing_hidden(modules: list[Any], kinds: tuple[type, ...]) -> None:
    """Raise TypeError if a plain list, tuple, set or dict in an attribute of a module of a tree has
    an object of these kinds, modules and parameters, that is in no attribute itself."""
    hidden: list[tuple[Any, str, Any]] = []
    for module in modules:
        for name, value in list(vars(module).items()):
            if type(value) not in _SIMPLE and not isinstance(value, kinds):
                hidden += [(module, name, part) for part in _parts_within(value, kinds)]
    if not hidden:
        return
    found = {id(value) for m in modules for value in (m, *list(vars(m).values()))}
    for module, name, part in hidden:
        if id(part) not in found:
            raise TypeError(
                f"{type(module).__name__}.{name} is a plain {type(vars(module)[name]).__name__}"
                f" that holds a {type(part).__name__}, which neither training nor the state "
                "dict would find. Put modules into an nn.ModuleList or nn.Sequential, and "
                "parameters into attributes."
            )


def warn_of_untrained(module: Any, name: str) -> None:
    """Warn that a tensor in an attribute requires a gradient but is not a parameter."""
    warnings.warn(
        f"{type(module).__name__}.{name} requires a gradient but is no parameter, so it is neither "
        "in parameters() nor saved: assign nn.Parameter(values) if it is to be trained",
        UserWarning,
        stacklevel=4,
    )


def _parts_within(value: Any, kinds: tuple[type, ...]) -> Iterator[Any]:
    """The objects of these kinds in nested plain containers."""
    if isinstance(value, _MAPPINGS):
        value = value.values()
    elif not isinstance(value, _COLLECTIONS):
        return
    for part in value:
        if isinstance(part, kinds):
            yield part
        else:
            yield from _parts_within(part, kinds)
