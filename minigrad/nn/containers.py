"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

from minigrad.nn.module import Module

M = TypeVar("M", bound=Module)


class ModuleList(Module, Generic[M]):
    """Modules by number; iterate over them or index them.

    Args:
        modules: the modules, in order.
    """

    def __init__(self, modules: Iterable[M] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: M) -> ModuleList[M]:
        """Add one at the end."""
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.named_children())

    def __iter__(self) -> Iterator[M]:
        return (cast(M, child) for _, child in self.named_children())

    def __getitem__(self, index: int) -> M:
        return list(self)[index]


class Sequential(ModuleList[Module]):
    """Modules applied one after the other.

    Args:
        modules: the modules, in order.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x
