"""A parameter group in flat memory: one stretch of parameters, gradients, and each average."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minigrad.dtypes import compute_dtype
from minigrad.ops.updates.rule import Rule
from minigrad.optim.flat import FlatParameters
from minigrad.optim.update import Place, Update, by_shape
from minigrad.tensor import Tensor


class Section:
    """A group's share of an optimizer's flat memory.

    A parameter is at home here as long as its array, its gradient and its state are the views that
    were made for it. `number_of` looks, so that a step notices when somebody has exchanged one.

    Args:
        flat: parameters and gradients.
        place: which of the optimizer's sections this is.
        first: where in `flat.parameters` the group begins.
        group: an optimizer's.
        rule, names: the group's rule, and what the state of its parameters holds.
        zeros: `zeros(size, dtype)` gives memory.

    Attributes:
        part: the slice of `flat.array` and `flat.grad` that the group has.
        state: name -> (n,) array, flat likewise.
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
        """Where in `flat.array` a parameter of the section begins and ends."""
        begin = self.part.start
        return begin + self._bounds[number], begin + self._bounds[number + 1]

    def home(self, parameter: Tensor, name: str) -> Any | None:
        """The place of a parameter's state, None if it has none here."""
        found = self._homes.get(parameter)
        return None if found is None else found[1].get(name)

    def number_of(self, parameter: Tensor, state: Mapping[str, Any]) -> int | None:
        """Which parameter of the section this is, None if it is none or not quite at home."""
        found = self._homes.get(parameter)
        if found is None:
            return None
        number, homes = found
        if not self.flat.is_home(self._first + number):
            return None
        for name, home in homes.items():
            if state[name] is not home:
                return None
        return number

    def updates(self, numbers: Sequence[int], settings: dict[str, Any], sign: int) -> list[Update]:
        """The section's rule for these parameters: neighbours together, or, if the rule takes whole
        parameters, those of one shape."""
        if not self.rule.elementwise:
            together = by_shape(numbers, lambda number: self._parameters[number].shape)
            return [self.update(some, settings, sign) for some in together]
        together = []
        for number in numbers:
            if together and together[-1][-1] == number - 1:
                together[-1].append(number)
            else:
                together.append([number])
        return [self.update(some, settings, sign) for some in together]

    def update(self, numbers: Sequence[int], settings: dict[str, Any], sign: int) -> Update:
        """One of the `updates`."""
        flat = self.flat
        arrays = [flat.array[self.part], flat.grad[self.part], *self.state.values()]
        if self.rule.elementwise:
            part = slice(self._bounds[numbers[0]], self._bounds[numbers[-1] + 1])
            rows = [tuple([array[part] for array in arrays])]
        else:
            rows = [tuple([self._view(array, number) for array in arrays]) for number in numbers]
        return Update(self.rule, rows, settings, sign, Place(self._place, numbers))
