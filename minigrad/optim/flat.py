"""Parameters as views into one buffer, and gradients likewise.

The norm of all gradients is then one dot product, an optimizer step a few calls over slices that
stay in cache, and sharing a model between processes means sharing one block of memory.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.device import namespace_of
from minigrad.tensor import Tensor


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
        grad: (N,) all gradients; zeros if they were forgotten.

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
        device = self.parameters[0].device
        with device.in_use():
            self.array = xp.empty(size, dtype) if data is None else data
        for buffer in (self.array, grad):
            if buffer is not None and buffer.shape != (size,):
                raise ValueError(f"the buffers must have {size} elements")
            if buffer is not None and buffer.dtype != dtype:
                raise ValueError(f"the buffers must be {dtype}, not {buffer.dtype}")
        # A buffer of its own lives, on the CPU, as long as a gradient lies in it. On a GPU captured
        # graphs know its address.
        with device.in_use():
            self._buffer = xp.zeros(size, dtype) if grad is None and xp is not np else grad
            for parameter, view in zip(self.parameters, self.views(self.array), strict=True):
                view[...] = parameter.array
                parameter.move(view)
        self._given = self._buffer is not None
        self._attached: Any = None

    @property
    def data(self) -> Any:
        for parameter in self.parameters:
            parameter.version.hand_out(parameter.array)
        return self.array

    @data.setter
    def data(self, value: Any) -> None:
        if value is not self.array:  # it is, as after `flat.data -= 1`
            raise ValueError("the parameters lie in this array: write to flat.data[...]")
        self.changed()

    @property
    def grad(self) -> Any:
        buffer = self._buffer
        if buffer is None and self._attached is not None:
            buffer = self._attached()
        if buffer is None:
            self._buffer = buffer = np.zeros(self.bounds[-1], self.array.dtype)
        return buffer

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not self.grad:  # it is, as after `flat.grad *= 2`
            raise ValueError("the gradients have places in this array: write to flat.grad[...]")

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
        """Make each `parameter.grad` its view into the flat array.

        The array is free again, unless it was given, when all parameters' gradients are forgotten.
        """
        buffer = self.grad
        for parameter, view in zip(self.parameters, self.views(buffer), strict=True):
            parameter.grad = Tensor.wrap(view)
        if not self._given:
            self._buffer, self._attached = None, weakref.ref(buffer)

    def __deepcopy__(self, memo: dict[int, Any]) -> FlatParameters:
        """Copies of the parameters, in memory that is flat as well."""
        parameters = copy.deepcopy(self.parameters, memo)
        gradients = [p.grad.array for p in parameters if p.grad is not None]
        result = type(self)(parameters)
        if len(gradients) == len(parameters):
            for place, gradient in zip(result.views(result.grad), gradients, strict=True):
                place[...] = gradient
            result.attach_grad()
        return result


class MergedOnce:
    """`merged` that looks again only when it is given other arrays than the last time.

    It keeps no array alive, and a copy of it knows nothing.
    """

    def __init__(self) -> None:
        self._arrays: list[Any] = []  # weak references
        self._part: slice | None = None

    def __call__(self, arrays: Sequence[Any]) -> Any | None:
        known = len(arrays) == len(self._arrays) and all(
            [reference() is array for reference, array in zip(self._arrays, arrays, strict=True)]
        )
        if not known:
            self._arrays = [weakref.ref(array) for array in arrays]
            self._part = _adjacent(arrays)
        return None if self._part is None else arrays[0].base[self._part]

    def __reduce__(self) -> Any:
        return MergedOnce, ()


def merged(arrays: Sequence[Any]) -> Any | None:
    """One flat view over `arrays` if they lie one after the other in one flat array, else None."""
    part = _adjacent(arrays)
    return None if part is None else arrays[0].base[part]


def _adjacent(arrays: Sequence[Any]) -> slice | None:
    """Which part of their flat array `arrays` are, None if they do not lie one after the other."""
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
    return slice(start, stop)


def _address(array: Any) -> int:
    """Where the first element lies."""
    if isinstance(array, np.ndarray):
        return array.__array_interface__["data"][0]
    return array.data.ptr
