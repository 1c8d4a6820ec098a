"""Parameters as views into one buffer, and gradients likewise.

The norm of all gradients is then one dot product, an optimizer step a few calls over slices that
stay in cache, and sharing a model between processes means sharing one block of memory.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.device import namespace_of
from minigrad.tensor import Tensor
from minigrad.version import Version


class FlatParameters:
    """Moves parameters into one flat array, and gives their gradients places in another.

    The values stay as they are; each parameter's array becomes a view.

    Args:
        parameters: of one dtype and one device, in the order they shall have.
        data: a flat array to use (for example shared memory); a new one if left out.
        grad: likewise for the gradients, which start at 0.

    Attributes:
        data: (N,) all parameters, also to be written to: graphs that have read them notice.
        array: the same array, for the engine: who writes there calls `changed()`.
        grad: (N,) all gradients.

    Raises:
        ValueError: there are no parameters, they differ in dtype or device, or an array does not
            fit.
    """

    def __init__(self, parameters: Sequence[Tensor], data: Any = None, grad: Any = None) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("FlatParameters was given no parameters")
        if len({(p.dtype, str(p.device)) for p in self.parameters}) != 1:
            raise ValueError("FlatParameters needs parameters of one dtype on one device")
        xp, dtype = namespace_of(self.parameters[0].array), self.parameters[0].dtype
        self.bounds = np.cumsum([0] + [p.size for p in self.parameters]).tolist()
        size = self.bounds[-1]
        self.array = xp.empty(size, dtype) if data is None else data
        self.grad = xp.zeros(size, dtype) if grad is None else grad
        if self.array.shape != (size,) or self.grad.shape != (size,):
            raise ValueError(f"the buffers must have {size} elements")
        if self.array.dtype != dtype or self.grad.dtype != dtype:
            raise ValueError(
                f"the buffers must be {dtype}, not {self.array.dtype} and {self.grad.dtype}"
            )
        for parameter, view in zip(self.parameters, self.views(self.array), strict=True):
            view[...] = parameter.array
            parameter.array = view
            parameter._version = Version(parameter._version.number + 1)
        self._gradients = [Tensor.wrap(view) for view in self.views(self.grad)]

    @property
    def data(self) -> Any:
        for parameter in self.parameters:
            parameter._version.hand_out(parameter.array)
        return self.array

    @data.setter
    def data(self, value: Any) -> None:
        if value is not self.array:  # it is, as after `flat.data -= 1`
            raise ValueError("the parameters lie in this array: write to flat.data[...]")
        self.changed()

    def changed(self) -> None:
        """Say that `array` holds other values now: graphs that have read it become invalid."""
        for parameter in self.parameters:
            parameter.changed()

    def views(self, flat: Any) -> list[Any]:
        """One view into `flat` for each parameter, in its shape."""
        return [
            flat[a:b].reshape(p.shape)
            for a, b, p in zip(self.bounds[:-1], self.bounds[1:], self.parameters, strict=True)
        ]

    def zero_grad(self) -> None:
        """Set all gradients to 0 and attach them, so that backward adds into the flat array."""
        self.grad[...] = 0
        self.attach_grad()

    def attach_grad(self) -> None:
        """Make each `parameter.grad` its view into the flat array."""
        for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
            parameter.grad = gradient


class MergedOnce:
    """`merged` that looks again only when it is given other arrays than the last time."""

    def __init__(self) -> None:
        self._arrays: list[Any] = []
        self._result: Any | None = None

    def __call__(self, arrays: Sequence[Any]) -> Any | None:
        known = len(arrays) == len(self._arrays) and all(map(operator.is_, arrays, self._arrays))
        if not known:
            self._arrays, self._result = list(arrays), merged(arrays)
        return self._result


def merged(arrays: Sequence[Any]) -> Any | None:
    """One flat view over `arrays` if they lie one after the other in one flat array, else None."""
    base = arrays[0].base
    if base is None or getattr(base, "ndim", 0) != 1 or not base.flags.c_contiguous:
        return None
    itemsize, origin = base.itemsize, _address(base)
    start = stop = None
    for array in arrays:
        if array.base is not base or not array.flags.c_contiguous or array.dtype != base.dtype:
            return None
        begin = (_address(array) - origin) // itemsize
        if stop is None:
            start = begin
        elif begin != stop:
            return None
        stop = begin + array.size
    return base[start:stop]


def _address(array: Any) -> int:
    """Where the first element lies."""
    if isinstance(array, np.ndarray):
        return array.__array_interface__["data"][0]
    return array.data.ptr
