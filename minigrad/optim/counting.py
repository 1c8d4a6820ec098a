"""The host's part of steps that a GPU decides: whether they can be, and how they are counted."""

from __future__ import annotations

from typing import Any

from minigrad.optim.optimizer import Optimizer
from minigrad.optim.section import Section


def why_not(optimizer: Optimizer) -> str | None:
    """Why this optimizer's steps need the host, or None if `Orders` can tell them."""
    name = type(optimizer).__name__
    if not _is_the_usual(optimizer):
        return f"{name} makes steps in a way of its own"
    for group in optimizer.param_groups:
        rule = optimizer.rule_of(group)
        if not rule.captured:
            return f"the rule {rule.name!r} of {name} looks at values"
    if steps_made(optimizer) is None:
        return "some parameters have had more updates than others"
    return None


def _is_the_usual(optimizer: Optimizer) -> bool:
    """Whether its `step` is that of all optimizers."""
    step = next(vars(kind)["step"] for kind in type(optimizer).__mro__ if "step" in vars(kind))
    return "step" not in vars(optimizer) and step.__module__ == "minigrad.optim.optimizer"


def steps_made(optimizer: Optimizer) -> int | None:
    """How many steps the parameters have had, None if some have had more than others.

    Where steps are not counted it is 1 after the first.
    """
    counts: set[int | None] = set()  # None where there is a state without a count
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
    """So many steps have been made by orders: the states are those of flat memory, and count."""
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
