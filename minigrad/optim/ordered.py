"""Steps that a GPU decides (`Orders`): what such a step consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from minigrad.optim.section import Section
from minigrad.optim.update import Orders, Update

SettingsOf = Callable[[dict[str, Any], Any, bool], dict[str, Any]]
HOST = (int, float, str, tuple, type(None))  # what can be compared without looking at a GPU


def ordered_updates(
    sections: Iterable[Section], settings_of: SettingsOf, orders: Orders
) -> list[Update]:
    """A step of all parameters in an optimizer's sections, which nobody counts here.

    Args:
        settings_of: the optimizer's.
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
    """As the optimizer says. Numbers that are others at the first step are chosen on the GPU."""
    step = orders.step if "step" in names else None
    first = settings_of(group, step, True)
    if not names:  # there never is a state
        return first
    later = settings_of(group, step, False)
    return {
        name: value
        if value is first[name] or (isinstance(value, HOST) and value == first[name])
        else orders.xp.where(orders.step == 1, first[name], value)
        for name, value in later.items()
    }
