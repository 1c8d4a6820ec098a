"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar, cast, overload

from minigrad.nn.module import Module

M = TypeVar("M", bound=Module)


class ModuleList(Module, Generic[M]):
    """Modules by number; iterate over them or index them.

    Args:
        modules: the modules, in order.

    Raises:
        TypeError: something is not a module.
    """

    def __init__(self, modules: Iterable[M] = ()) -> None:
        self.extend(modules)

    def append(self, module: M) -> Self:
        """Add one at the end."""
        _require_module(self, module)
        number = len(self)
        while str(number) in vars(self):  # where one was taken out with `del`
            number += 1
        setattr(self, str(number), module)
        return self

    def extend(self, modules: Iterable[M]) -> Self:
        """Add several at the end."""
        if (
            isinstance(modules, Module)
            and not hasattr(type(modules), "__getitem__")
            and not isinstance(modules, Iterable)
        ):
            name, kind = type(self).__name__, type(modules).__name__
            raise TypeError(f"a {kind} is not iterable: give a list, as in {name}([layer, layer])")
        new = list(modules)
        for module in new:
            _require_module(self, module)
        for module in new:
            self.append(module)
        return self

    def __iadd__(self, modules: Iterable[M]) -> Self:
        return self.extend(modules)

    def insert(self, index: int, module: M) -> None:
        """Insert one before number `index`; the numbers of later ones grow by one."""
        _require_module(self, module)
        modules = list(self)
        modules.insert(index, module)
        self._renumber(modules)

    def __len__(self) -> int:
        return sum(1 for _ in self.named_children())

    def __iter__(self) -> Iterator[M]:
        return (cast(M, child) for _, child in self.named_children())

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList[M]: ...
    def __getitem__(self, index: int | slice) -> M | ModuleList[M]:
        """One module, or for a slice a container of this kind with some of them."""
        found = list(self)[index]
        if not isinstance(index, slice):
            return cast(M, found)
        part: ModuleList[Any] = Sequential() if isinstance(self, Sequential) else ModuleList()
        return part.extend(cast(list[M], found))

    def __setitem__(self, index: int, module: M) -> None:
        _require_module(self, module)
        modules = list(self)
        modules[index] = module
        self._renumber(modules)

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        del modules[index]
        self._renumber(modules)

    def _renumber(self, modules: list[M]) -> None:
        for name, _ in list(self.named_children()):
            delattr(self, name)
        self.extend(modules)


class Sequential(ModuleList[Module]):
    """Modules applied one after the other.

    Args:
        modules: the modules, in order, each an argument of its own.

    Raises:
        TypeError: something is not a module, such as a list or a function.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x


class ModuleDict(Module, Generic[M]):
    """Modules by name; a name is a key of the state dict, so it is a string without a dot.

    Args:
        modules: name -> module, in order.

    Raises:
        TypeError: something is not a module.
        KeyError: a name is empty, has a dot, or is that of an attribute of every module.
    """

    def __init__(self, modules: Mapping[str, M] | None = None) -> None:
        for name, module in (modules or {}).items():
            self[name] = module

    def __setitem__(self, name: str, module: M) -> None:
        _require_module(self, module)
        if not name or "." in name or hasattr(ModuleDict, name):
            raise KeyError(f"ModuleDict: {name!r} cannot be the name of a module; use another one")
        setattr(self, name, module)

    def __getitem__(self, name: str) -> M:
        found = vars(self).get(name)
        if not isinstance(found, Module):
            raise KeyError(f"ModuleDict has no {name!r}; it has {list(self)}")
        return cast(M, found)

    def __delitem__(self, name: str) -> None:
        self[name]  # a KeyError that says what is there
        delattr(self, name)

    def __len__(self) -> int:
        return sum(1 for _ in self.named_children())

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.named_children())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and isinstance(vars(self).get(name), Module)

    def keys(self) -> list[str]:
        """The names, in order."""
        return list(self)

    def values(self) -> list[M]:
        """The modules, in order."""
        return [cast(M, child) for _, child in self.named_children()]

    def items(self) -> list[tuple[str, M]]:
        """Names and modules, in order."""
        return [(name, cast(M, child)) for name, child in self.named_children()]


def _require_module(container: Module, value: Any) -> None:
    if isinstance(value, Module):
        return
    name, kind = type(container).__name__, type(value).__name__
    if isinstance(value, type) and issubclass(value, Module):
        hint = f"call it: {value.__name__}(...)"
    elif isinstance(value, (list, tuple, dict, Iterator)):
        hint = f"give its modules themselves, as in {name}(*layers)"
        hint = hint if isinstance(container, Sequential) else "use one list of modules"
    elif callable(value):
        hint = "functions have modules as well, such as nn.ReLU() for functional.relu"
    else:
        hint = "give an nn.Module"
    raise TypeError(f"{name} holds modules, and a {kind} ({value!r:.60}) is none: {hint}")
