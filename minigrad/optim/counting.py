"""Optimizer steps inside a captured graph: whether they are possible, and how the host counts them.

A captured step reads learning rate and step count from arrays on the GPU (`Orders`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.optim.optimizer import Optimizer
from minigrad.optim.section import Section

USUAL = Optimizer.step
PLAIN = (bool, int, float, complex, str, bytes, type(None))


def why_not(optimizer: Optimizer) -> str | None:
    """Why this optimizer's steps cannot be captured, or None if they can."""
    name = type(optimizer).__name__
    if not _is_the_usual(optimizer):
        return f"{name} makes steps in a way of its own"
    for group in optimizer.param_groups:
        rule = optimizer.rule_of(group)
        if not rule.captured:
            return f"the rule {rule.name!r} of {name} looks at values"
    if steps_made(optimizer) is None:
        return "some parameters have had more updates than others"
    if settings_now(optimizer) != settings_now(optimizer):
        return f"the settings of {name} are others each time it is asked for them"
    return None


def why_stale(optimizer: Optimizer) -> str | None:
    """Why the optimizer's next step would not update its flat memory by the same rules, or None.

    A captured step updates this memory, by the rules at the time when the memory was made flat.
    """
    name, flat = type(optimizer).__name__, optimizer.flat
    if flat is None:
        return f"the memory of {name} is not flat"
    groups, sections = optimizer.param_groups, optimizer.sections
    if len(groups) != len(sections) or not all(
        section.is_of(group) for section, group in zip(sections, groups, strict=True)
    ):
        return f"{name} was given other parameters"
    for section in sections:
        rule, names = optimizer.rule_of(section.group), optimizer.state_names(section.group)
        if (section.rule, section.names) != (rule, names):
            return f"a setting was changed with which {name} has another rule or another state"
    if not flat.holds_all():
        return "a parameter was given memory of its own"
    if not all(section.holds(optimizer.state) for section in sections):
        return f"some of the state of {name} was replaced"
    return None


def settings_now(optimizer: Optimizer) -> Any:
    """The settings of an optimizer that a captured step contains, to be compared with `==`.

    These are all settings but learning rates and step count, which it reads from arrays.
    """
    found: list[Any] = []
    for group in optimizer.param_groups:
        told = {**group, "lr": 1.0}
        counted = "step" in optimizer.state_names(group)
        found.append(bool(group.get("maximize")))
        for step, new in ((1, True), (2, False)):
            settings = optimizer.settings_of(told, step if counted else None, new)
            found.append(_frozen(settings))
    return found


class _Same:
    """A wrapper that is equal to another if both hold the same object."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


def _frozen(value: Any) -> Any:
    """A copy of the value that does not change when the value is changed in place.

    Elements of arrays on a GPU are not copied, because each replay of a graph reads them again.
    """
    if isinstance(value, PLAIN):
        return type(value), repr(value)  # so NaN equals NaN, and True differs from 1
    if isinstance(value, Mapping):
        return type(value), [(_frozen(key), _frozen(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [_frozen(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(map(repr, value))
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        return type(value), value.dtype, value.shape, value.tobytes()
    inner = {} if hasattr(value, "dtype") or callable(value) else getattr(value, "__dict__", {})
    return _Same(value), [(name, repr(item)) for name, item in inner.items()]


def _is_the_usual(optimizer: Optimizer) -> bool:
    """Whether its `step` is the method of the base class."""
    return "step" not in vars(optimizer) and type(optimizer).step is USUAL


def steps_made(optimizer: Optimizer) -> int | None:
    """The number of steps that the parameters have had, None if some have had more than others.

    For rules that do not count steps it is 0 before the first step and 1 after it.
    """
    counts: set[int | None] = set()  # None stands for a state without a step count
    for group in optimizer.param_groups:
        if optimizer.state_names(group):
            states = [optimizer.state.get(parameter) for parameter in group["params"]]
            counts |= {0 if state is None else state.get("step") for state in states}
    without = None in counts
    known = [count for count in counts if count is not None]
    if len(known) > 1 or (without and known == [0]):
        return None
    return known[0] if known else int(without)


def count_steps(optimizer: Optimizer, steps: int) -> None:
    """Record that `steps` captured steps were made: set the states to flat memory, and count."""
    for section in optimizer.sections if steps else ():
        _count_section(optimizer.state, section, steps)


def _count_section(states: dict[Any, dict[str, Any]], section: Section, steps: int) -> None:
    for parameter in section.group["params"] if section.names else ():
        state = states.get(parameter)
        if state is None:
            homes = {name: section.home(parameter, name) for name in section.state}
            state = states[parameter] = homes
        if "step" in section.names:
            state["step"] = state.get("step", 0) + steps
