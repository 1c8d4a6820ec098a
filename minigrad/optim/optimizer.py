"""The base class of optimizers: groups, steps by a rule, flat memory, and state to save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any, ClassVar

from minigrad.device import namespace_of
from minigrad.dtypes import compute_dtype
from minigrad.graph import require_gradient
from minigrad.hints import explain_options
from minigrad.ops.updates.rule import Rule
from minigrad.optim.flat import FlatParameters
from minigrad.optim.groups import listed, parameters_of, warn_of_nothing_to_do
from minigrad.optim.ordered import ordered_updates
from minigrad.optim.saved_state import read_state, written_state
from minigrad.optim.section import Section
from minigrad.optim.update import Orders, Place, Row, Update, apply_all, together
from minigrad.tensor import Tensor


class Optimizer:
    """Base class. An optimizer changes parameters in place and records no graph.

    Your own optimizer names its rule (see `minigrad.ops.updates.rule`) and its settings:

        class Lion(Optimizer):
            rule = lion

            def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
                super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    It may override `check_settings`. If rule, state or settings depend on the group or the step, it
    overrides `rule_of`, `state_names` or `settings_of`. The setting "maximize" works with any rule:
    steps go along the gradient instead of against it.

    Args:
        params: parameters, or groups: dicts with "params" and the settings that differ from the
            defaults.
        defaults: the settings of groups that do not set them.

    Attributes:
        param_groups: one dict per group: "params" and its settings. Schedules write "lr".
        state: parameter (the tensor itself) -> a dict with its arrays and its step count.
        defaults: the settings of groups that do not set them.
        flat: the flat memory of parameters and gradients after `flatten`, else None.
        sections: the part of each group in that memory.
        run: makes the updates of a step: one by one, or divided among workers by an engine.

    Raises:
        TypeError, ValueError: there are no parameters, or as for `add_param_group`.
    """

    rule: ClassVar[type[Rule]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        explain_options(cls)

    def __init__(
        self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], defaults: dict[str, Any]
    ) -> None:
        if isinstance(params, (Tensor, Mapping, set, frozenset)):
            raise TypeError(
                "parameters come in a list (or as an iterator), or as a list of groups, not as a "
                f"{type(params).__name__}"
            )
        self.defaults: dict[str, Any] = dict(defaults)
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.flat: FlatParameters | None = None
        self.sections: list[Section] = []
        self.run: Callable[[list[Update], Any], None] = apply_all
        given: list[Any] = list(listed(params))
        for group in given if given and isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)
        if not self.parameters():
            raise ValueError("the optimizer was given no parameters")

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters, which start without state. After an error nothing has changed.

        Args:
            group: "params" (a tensor or a list) and settings; the others are the defaults.

        Raises:
            TypeError: the group is not a dict, or "params" holds something other than tensors.
            ValueError: the optimizer has a parameter already, or it is not a leaf; a setting is
                unknown or out of range.
        """
        parameters = parameters_of(group, self.defaults)
        everything = [*self.parameters(), *parameters]
        if len({id(p) for p in everything}) != len(everything):
            raise ValueError("a parameter is given to the optimizer twice")
        full = {**self.defaults, **group, "params": parameters}
        self.check_settings(full)
        self.param_groups.append(full)

    def check_settings(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError if a setting of the group is out of range."""

    def require_not_negative(self, group: Mapping[str, Any], *names: str) -> None:
        """Raise ValueError if a setting is negative or NaN, TypeError for a str.

        An infinite learning rate, weight decay or eps is a ValueError, too.
        """
        for name in names:
            if isinstance(group[name], str):
                raise TypeError(f"{type(self).__name__}: {name} must be a number, not a str")
            if group[name] != group[name]:
                raise ValueError(f"{type(self).__name__}: {name} must be a number, it is nan")
            if not group[name] >= 0:
                raise ValueError(
                    f"{type(self).__name__}: {name} must not be negative, it is {group[name]}"
                )
            if group[name] == inf and name in ("lr", "weight_decay", "eps"):
                raise ValueError(f"{type(self).__name__}: {name} must be finite, it is inf")

    def parameters(self) -> list[Tensor]:
        """All parameters, group by group."""
        return [p for group in self.param_groups for p in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set all gradients to None, or with `set_to_none=False` fill those that exist with 0."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.array[...] = 0
                parameter.grad.changed()

    # What a subclass may override

    def rule_of(self, group: Mapping[str, Any]) -> type[Rule]:
        """The rule that updates a group.

        Raises:
            TypeError: the class names none.
        """
        if not hasattr(self, "rule"):
            raise TypeError(f"{type(self).__name__} has no rule; see minigrad.optim.Optimizer")
        return self.rule

    def state_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of what a parameter's state holds: "step" is a number, the others are arrays.

        The rule gets the arrays in this order.
        """
        return self.rule_of(group).state

    def settings_of(self, group: Mapping[str, Any], step: int | None, new: bool) -> dict[str, Any]:
        """The settings that the rule is called with.

        They must depend on the arguments and the optimizer's attributes only, and a call must not
        change anything: captured steps call this more often than there are steps.

        Args:
            group: the group of the parameters.
            step: the number of this step, from 1, if the rule counts steps.
            new: whether the parameters have no state yet.
        """
        settings = {name: group[name] for name in self.defaults if name != "maximize"}
        return settings if step is None else {**settings, "step": step}

    # Steps

    def step(self, grad_scale: Any = 1.0, orders: Orders | None = None) -> None:
        """Update every parameter that has a gradient. Warns if none has one.

        Args:
            grad_scale: a factor of all gradients, which are not changed themselves. With
                `minigrad.optim.clip_scale` this clips without a pass over the gradients.
            orders: arrays on a GPU from which a captured step reads its numbers (`grad_scale` lies
                there too). Such a step updates all flat memory, and the host does not count it: see
                `minigrad.optim.ordered`.

        Raises:
            TypeError: a loss or a function is given, as other frameworks' steps take them.
        """
        loss = isinstance(grad_scale, Tensor) and grad_scale.requires_grad
        if loss or callable(grad_scale):
            raise TypeError(
                f"step() takes no {type(grad_scale).__name__}: call loss.backward() and then step()"
            )
        if orders is not None:
            self.run(ordered_updates(self.sections, self.settings_of, orders), grad_scale)
            return
        updates: list[Update] = []
        moved: list[Tensor] = []
        for group in self.param_groups:
            members = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in members:
                grad: Any = parameter.grad
                if type(grad) is not Tensor or grad.array.shape != parameter.array.shape:
                    require_gradient(parameter)
            if members:
                with members[0].device.in_use():
                    updates += self._updates(group, members)
            moved += members
        if not moved:
            warn_of_nothing_to_do(self.parameters())
        self.run(updates, grad_scale)
        for parameter in moved:
            parameter.version.number += 1  # as `changed` does

    def _updates(self, group: dict[str, Any], members: list[Tensor]) -> list[Update]:
        """The updates of one step for some parameters of a group; also increases their step counts.

        Parameters that are neighbours in flat memory and have equal step counts form one update.
        """
        rule, names = self.rule_of(group), self.state_names(group)
        section = self._section(group, rule, names)
        counted, arrays = "step" in names, [name for name in names if name != "step"]
        alike: dict[tuple[int | None, bool], tuple[list[int], list[Row]]] = {}
        complete, before, step = frozenset(names), None, None
        at_home: list[int] = []
        rows: list[Row] = []
        known = [self.state.get(parameter) for parameter in members]
        states = [
            self._state_of(parameter, names)
            if state is None or not state.keys() >= complete
            else state
            for parameter, state in zip(members, known, strict=True)
        ]
        numbers: Sequence[int | None] = (
            [None] * len(members) if section is None else section.numbers_of(members, states)
        )
        for parameter, before_it, state, number in zip(
            members, known, states, numbers, strict=True
        ):
            new = before_it is None
            if counted:
                step = state["step"] = state["step"] + 1
                new = step == 1
            if (step, new) != before:  # usually they are the same for all parameters
                before = step, new
                at_home, rows = alike.setdefault(before, ([], []))
            if number is None:
                assert parameter.grad is not None
                row = (parameter.array, parameter.grad.array, *[state[name] for name in arrays])
                rows.append(row)
            else:
                at_home.append(number)
        result: list[Update] = []
        sign = -1 if group.get("maximize") else 1
        for (step, new), (at_home, rows) in alike.items():
            settings = self.settings_of(group, step, new)
            if section is not None:
                result += section.updates(at_home, settings, sign)
            result += [Update(rule, some, settings, sign) for some in together(rule, rows)]
        return result

    def _section(
        self, group: dict[str, Any], rule: type[Rule], names: tuple[str, ...]
    ) -> Section | None:
        """The section that was made for this group, if rule and state are still the same."""
        for section in self.sections:
            if section.group is group and (section.rule, section.names) == (rule, names):
                return section
        return None

    def update_at(self, place: Place, settings: dict[str, Any], sign: int) -> Update:
        """The update that another process has planned for a place in shared flat memory."""
        return self.sections[place.section].update(place.members, settings, sign)

    # Memory

    def flatten(
        self,
        flat: FlatParameters | None = None,
        zeros: Callable[[int, Any], Any] | None = None,
    ) -> FlatParameters:
        """Move parameters, gradients and state into flat memory, in the order of the groups.

        Values stay the same. A step then updates a whole group at once, as far as its arrays still
        lie in this memory. Call `flat.attach_grad()` or `flat.zero_grad()` so that backward writes
        gradients there.

        Args:
            flat: flat memory that already holds the parameters, this optimizer's first and in its
                order.
            zeros: `zeros(size, dtype)` allocates memory for state, for example shared memory.

        Raises:
            ValueError: the parameters differ in dtype or device, or `flat` has others.
        """
        parameters = self.parameters()
        flat = FlatParameters(parameters) if flat is None else flat
        first = flat.parameters[: len(parameters)]
        if list(map(id, first)) != list(map(id, parameters)):
            raise ValueError("the flat memory holds other parameters, or has them in another order")
        make = zeros or namespace_of(flat.array).zeros
        before, self.state = self.state, {}
        self.flat, self.sections, begin = flat, [], 0
        with parameters[0].device.in_use():
            for number, group in enumerate(self.param_groups):
                rule, names = self.rule_of(group), self.state_names(group)
                section = Section(flat, number, begin, group, rule, names, make)
                self.sections.append(section)
                begin += len(group["params"])
                for parameter in group["params"]:
                    if parameter in before or "step" in names:
                        self._fill_state(parameter, before.get(parameter, {}))
        return flat

    def __getstate__(self) -> dict[str, Any]:
        """A copy has its own memory, which is not flat until `flatten` is called."""
        return {**vars(self), "flat": None, "sections": [], "run": apply_all}

    def _state_of(self, parameter: Tensor, names: Iterable[str]) -> dict[str, Any]:
        """The state of a parameter, made of zeros if there is none yet; empty without names."""
        state = self.state.get(parameter, {})
        for name in names:
            if name not in state:
                self.state[parameter] = state
                state[name] = 0 if name == "step" else self._zeros(parameter, name)
        return state

    def _zeros(self, parameter: Tensor, name: str) -> Any:
        for section in self.sections:
            home = section.home(parameter, name)
            if home is not None:
                home[...] = 0
                return home
        dtype = compute_dtype(parameter.dtype)
        with parameter.device.in_use():
            return namespace_of(parameter.array).zeros(parameter.shape, dtype)

    def _group_of(self, parameter: Tensor) -> dict[str, Any]:
        for group in self.param_groups:
            if any(p is parameter for p in group["params"]):
                return group
        raise ValueError(f"a parameter of shape {parameter.shape} is in no group")

    # State

    def state_dict(self) -> dict[str, Any]:
        """Settings, step counts and copies of the state, as NumPy arrays.

        `{"state": {number: {...}}, "param_groups": [{"lr": ..., "params": [numbers]}]}`

        Parameters are numbered in order, group by group.
        """
        return written_state(self.param_groups, self.state, self.state_names)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`. Parameters are matched by their order, as in PyTorch.

        After an error nothing has changed.

        Raises:
            ValueError: it is the state of another kind of optimizer, or its groups, settings or
                shapes do not fit this optimizer and its parameters.
        """
        settings, entries = read_state(
            saved,
            self.param_groups,
            name=type(self).__name__,
            needed=self.defaults,
            check_settings=self.check_settings,
            state_names=self.state_names,
        )
        for group, new in zip(self.param_groups, settings, strict=True):
            group.update(new)
        self.state = {}
        for parameter, entry in entries.items():
            self._fill_state(parameter, entry)

    def _fill_state(self, parameter: Tensor, values: Mapping[str, Any]) -> None:
        """Write values into the state of a parameter, and make the state if there is none yet."""
        names = self.state_names(self._group_of(parameter))
        own = self._state_of(parameter, dict.fromkeys([*names, *values]))
        for key, value in values.items():
            if key == "step":
                own[key] = value
            else:
                own[key][...] = parameter.device.asarray(value)
