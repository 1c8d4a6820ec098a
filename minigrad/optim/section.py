"""A parameter group in flat memory: one slice each of parameters, gradients and states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any

from minigrad.dtypes import compute_dtype
from minigrad.ops.updates.rule import Rule
from minigrad.optim.flat import FlatParameters
from minigrad.optim.update import Place, Update, by_shape
from minigrad.tensor import Tensor


class Section:
    """A group's part of an optimizer's flat memory.

    A parameter is "at home" here while its array, its gradient and its state are the views that
    were made for it. `numbers_of` checks this, so that a step notices if one has been replaced.

    Args:
        flat: the flat memory of parameters and gradients.
        place: the number of this section among the optimizer's.
        first: where in `flat.parameters` the group begins.
        group: the optimizer's group.
        rule, names: the group's rule, and the names of the state of its parameters.
        zeros: `zeros(size, dtype)` allocates memory.

    Attributes:
        part: the group's slice of `flat.array` and `flat.grad`.
        state: name -> (n,) flat array of that state.
    """

    rule: type[Rule]
    flat: FlatParameters
    group: dict[str, Any]
    names: tuple[str, ...]

    def __init__(
        self,
        flat: FlatParameters,
        place: int,
        first: int,
        group: dict[str, Any],
        rule: type[Rule],
        names: tuple[str, ...],
        zeros: Callable[[int, Any], Any],
    ) -> None:
        self.flat, self.group, self.rule, self.names = flat, group, rule, names
        self._place, self._first = place, first
        self._parameters = list(group["params"])
        bounds = flat.bounds[first : first + len(self._parameters) + 1]
        self.part: slice = slice(bounds[0], bounds[-1])
        self._bounds = [bound - bounds[0] for bound in bounds]
        dtype = compute_dtype(flat.array.dtype)
        self.state: dict[str, Any] = {
            name: zeros(self._bounds[-1], dtype) for name in names if name != "step"
        }
        self._homes: dict[Tensor, tuple[int, dict[str, Any]]] = {
            parameter: (number, {name: self._view(a, number) for name, a in self.state.items()})
            for number, parameter in enumerate(self._parameters)
        }

    def _view(self, array: Any, number: int) -> Any:
        start, stop = self._bounds[number], self._bounds[number + 1]
        return array[start:stop].reshape(self._parameters[number].shape)

    def place_of(self, number: int) -> tuple[int, int]:
        """The start and the end in `flat.array` of a parameter of the section."""
        begin = self.part.start
        return begin + self._bounds[number], begin + self._bounds[number + 1]

    def home(self, parameter: Tensor, name: str) -> Any | None:
        """The view that was made for a state of a parameter; None if there is none here."""
        found = self._homes.get(parameter)
        return None if found is None else found[1].get(name)

    def is_of(self, group: dict[str, Any]) -> bool:
        """Whether the section was made for this group, with the parameters that it has now."""
        same = self.group is group and len(group["params"]) == len(self._parameters)
        return same and all(map(is_, group["params"], self._parameters))

    def holds(self, states: Mapping[Tensor, Mapping[str, Any]]) -> bool:
        """Whether the states that its parameters have lie here."""
        for parameter, (_, homes) in self._homes.items():
            state = states.get(parameter, homes)
            for name, home in homes.items():
                if state.get(name) is not home:
                    return False
        return True

    def numbers_of(
        self, parameters: Sequence[Tensor], states: Sequence[Mapping[str, Any]]
    ) -> list[int | None]:
        """The numbers of parameters within the section, given the parameters and their states.

        None stands for a parameter that does not belong to it or is not at home.
        """
        at_home = self.flat.at_home(self._first, self._first + len(self._parameters))
        numbers: list[int | None] = []
        for parameter, state in zip(parameters, states, strict=True):
            number, homes = self._homes.get(parameter, (None, {}))
            if number is not None and not at_home[number]:
                number = None
            for name, home in homes.items():
                if state[name] is not home:
                    number = None
            numbers.append(number)
        return numbers

    def updates(self, numbers: Sequence[int], settings: dict[str, Any], sign: int) -> list[Update]:
        """The updates of these parameters by the section's rule.

        Neighbours in memory form one update. If the rule is not element-wise, parameters of one
        shape do.
        """
        if not self.rule.elementwise:
            together = by_shape(numbers, lambda number: self._parameters[number].shape)
            return [self.update(some, settings, sign) for some in together]
        together = []
        if numbers and list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))):
            return [self.update(numbers, settings, sign)]  # usually the whole group
        for number in numbers:
            if together and together[-1][-1] == number - 1:
                together[-1].append(number)
            else:
                together.append([number])
        return [self.update(some, settings, sign) for some in together]

    def update(self, numbers: Sequence[int], settings: dict[str, Any], sign: int) -> Update:
        """One update: of parameters that `updates` has put together."""
        flat = self.flat
        arrays = [flat.array[self.part], flat.grad[self.part], *self.state.values()]
        if self.rule.elementwise:
            part = slice(self._bounds[numbers[0]], self._bounds[numbers[-1] + 1])
            rows = [tuple([array[part] for array in arrays])]
        else:
            rows = [tuple([self._view(array, number) for array in arrays]) for number in numbers]
        return Update(self.rule, rows, settings, sign, Place(self._place, numbers))
