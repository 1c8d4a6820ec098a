"""The updates of a captured step, which reads its numbers from arrays on the GPU (`Orders`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import is_
from typing import Any

import numpy as np

from minigrad.optim.section import Section
from minigrad.optim.update import Orders, Update

SettingsOf = Callable[[dict[str, Any], Any, bool], dict[str, Any]]
NUMBERS = (int, float, np.generic)  # settings that may differ between the first and later steps


def ordered_updates(
    sections: Iterable[Section], settings_of: SettingsOf, orders: Orders
) -> list[Update]:
    """The updates of a captured step: of all parameters in the optimizer's sections.

    Args:
        settings_of: the optimizer's method.
    """
    updates: list[Update] = []
    for section, rate in zip(sections, orders.rates, strict=True):
        group = section.group
        settings = _settings(settings_of, {**group, "lr": rate}, section.names, orders)
        sign = -1 if group.get("maximize") else 1
        some = section.updates(range(len(group["params"])), settings, sign)
        updates += [update._replace(orders=orders) for update in some]
    return updates


def _settings(
    settings_of: SettingsOf, group: dict[str, Any], names: tuple[str, ...], orders: Orders
) -> dict[str, Any]:
    """The optimizer's settings. The GPU chooses between numbers that differ at the first step."""
    step = orders.step if "step" in names else None
    first = settings_of(group, step, True)
    if not names:  # there never is a state
        return first
    later = settings_of(group, step, False)
    return {name: _chosen(name, first[name], value, orders) for name, value in later.items()}


def _chosen(name: str, first: Any, later: Any, orders: Orders) -> Any:
    """The value, if it is the same at all steps; else an array that the GPU sets to the right one.

    Raises:
        TypeError: they differ, and are not numbers.
    """
    if later is first:
        return later
    lists = isinstance(later, (tuple, list)) and isinstance(first, (tuple, list))
    if lists and len(first) == len(later):
        both = [_chosen(name, a, b, orders) for a, b in zip(first, later, strict=True)]
        if all(map(is_, both, later)):
            return later
        return tuple(both) if isinstance(later, tuple) else both
    on_device = any(isinstance(value, type(orders.step)) for value in (first, later))
    if not on_device and _same(first, later):  # arrays on a GPU are not compared
        return later
    if not on_device and not (isinstance(first, NUMBERS) and isinstance(later, NUMBERS)):
        raise TypeError(f"the setting {name!r} is another at the first step, and is no number")
    return orders.xp.where(orders.step == 1, first, later)


def _same(first: Any, later: Any) -> bool:
    if isinstance(first, np.ndarray) or isinstance(later, np.ndarray):
        return bool(np.array_equal(first, later))
    return bool(first == later)
