"""Finding modules and parameters that stand in plain lists, where nothing would train them."""

from __future__ import annotations

from collections import UserDict, UserList, deque
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

_SIMPLE = frozenset({bool, float, int, str, type(None)})  # hold nothing; told apart quickly
_MAPPINGS = (dict, UserDict, MappingProxyType)
_COLLECTIONS = (list, tuple, set, frozenset, deque, UserList)


def require_nothing_hidden(root: Any, module_type: type, parameter_type: type) -> None:
    """Raise TypeError if a plain list, tuple, set or dict in an attribute of a module of the tree
    holds a module or parameter that is in no attribute itself."""
    found: dict[int, None] = {}
    hidden: list[tuple[Any, str, Any]] = []
    stack = [root]
    while stack:
        module = stack.pop()
        if id(module) in found:
            continue
        found[id(module)] = None
        for name, value in vars(module).items():
            if type(value) in _SIMPLE:
                continue
            if isinstance(value, module_type):
                stack.append(value)
            elif isinstance(value, parameter_type):
                found[id(value)] = None
            else:
                parts = _parts_within(value, (module_type, parameter_type))
                hidden += [(module, name, part) for part in parts]
    for module, name, part in hidden:
        if id(part) not in found:
            raise TypeError(
                f"{type(module).__name__}.{name} is a plain {type(vars(module)[name]).__name__}"
                f" that holds a {type(part).__name__}, which neither training nor the state "
                "dict would find. Put modules into an nn.ModuleList or nn.Sequential, and "
                "parameters into attributes."
            )


def _parts_within(value: Any, kinds: tuple[type, ...]) -> Iterator[Any]:
    """What is of these kinds in nested plain containers."""
    if isinstance(value, _MAPPINGS):
        value = value.values()
    elif not isinstance(value, _COLLECTIONS):
        return
    for part in value:
        if isinstance(part, kinds):
            yield part
        else:
            yield from _parts_within(part, kinds)
