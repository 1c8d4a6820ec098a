"""Flat memory: all parameters are views into one array, and all gradients into another.

The norm of all gradients is then one dot product. An optimizer step is a few calls over slices that
stay in cache. Processes share a model by sharing one block of memory.
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
    """Moves parameters into one flat array, and their gradients into another.

    The values stay as they are; each parameter's array becomes a view.

    Args:
        parameters: of one dtype and one device. They are stored in this order.
        data: a flat array to use (for example shared memory); by default a new one.
        grad: the same for the gradients, which start at 0.

    Attributes:
        data: (N,) all parameters. It may be written to; graphs that have read them then become
            invalid.
        array: the same array, for the engine; call `changed()` after writing to it.
        grad: (N,) all gradients; zeros if there are none.

    Raises:
        ValueError: there are no parameters, they differ in dtype or device, or an array does not
            fit.
    """

    def __init__(self, parameters: Sequence[Tensor], data: Any = None, grad: Any = None) -> None:
        self.parameters: list[Tensor] = list(parameters)
        if not self.parameters:
            raise ValueError("FlatParameters was given no parameters")
        if len({(p.dtype, str(p.device)) for p in self.parameters}) != 1:
            raise ValueError("FlatParameters needs parameters of one dtype on one device")
        xp, dtype = namespace_of(self.parameters[0].array), self.parameters[0].dtype
        self.bounds: Any = np.cumsum([0] + [p.size for p in self.parameters]).tolist()
        size = self.bounds[-1]
        device = self.parameters[0].device
        with device.in_use():
            self.array: Any = xp.empty(size, dtype) if data is None else data
        for buffer in (self.array, grad):
            if buffer is not None and buffer.shape != (size,):
                raise ValueError(f"the buffers must have {size} elements")
            if buffer is not None and buffer.dtype != dtype:
                raise ValueError(f"the buffers must be {dtype}, not {buffer.dtype}")
        # On the CPU a buffer that was not given is freed when no gradient uses it. On a GPU it is
        # kept, because captured graphs contain its address.
        with device.in_use():
            self._buffer = xp.zeros(size, dtype) if grad is None and xp is not np else grad
            self._homes = self.views(self.array)
            for parameter, view in zip(self.parameters, self._homes, strict=True):
                view[...] = parameter.array
                parameter.move(view)
        self._given = self._buffer is not None
        self._attached: Any = None
        self._gradients: list[Any] = []  # weak references to the views that gradients have
        self._lasting: list[tuple[Tensor, Any]] = []  # gradients in a kept buffer, and their views

    @property
    def data(self) -> Any:
        for parameter in self.parameters:
            parameter.version.hand_out(parameter.array)
        return self.array

    @data.setter
    def data(self, value: Any) -> None:
        if value is not self.array:  # `flat.data -= 1` assigns the same array
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
        if value is not self.grad:  # `flat.grad *= 2` assigns the same array
            raise ValueError("the gradients have places in this array: write to flat.grad[...]")

    def changed(self) -> None:
        """Call this after writing to `array`: graphs that have read it become invalid."""
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

        On the CPU an array that was not given is freed when all these gradients are dropped.
        """
        if self._lasting:  # reuse the same tensors, unless their arrays were replaced
            for parameter, (gradient, view) in zip(self.parameters, self._lasting, strict=True):
                if gradient.array is not view:
                    gradient = Tensor.wrap(view)
                parameter.grad = gradient
                gradient.version.number += 1
            return
        buffer = self.grad
        gradients = [Tensor.wrap(view) for view in self.views(buffer)]
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._gradients = [weakref.ref(gradient.array) for gradient in gradients]
        if self._given:
            self._lasting = [(gradient, gradient.array) for gradient in gradients]
        else:
            self._buffer, self._attached = None, weakref.ref(buffer)

    def holds_all(self) -> bool:
        """Whether all parameters still lie here. A parameter may have been given another array."""
        return all([p.array is home for p, home in zip(self.parameters, self._homes, strict=True)])

    def at_home(self, first: int = 0, stop: int | None = None) -> list[bool]:
        """For each of these parameters: whether it and its gradient still lie here."""
        part = slice(first, stop)
        parameters = self.parameters[part]
        if not self._gradients:
            return [False] * len(parameters)
        return [
            p.array is home and p.grad is not None and p.grad.array is view()
            for p, home, view in zip(
                parameters, self._homes[part], self._gradients[part], strict=True
            )
        ]

    def __deepcopy__(self, memo: dict[int, Any]) -> FlatParameters:
        """Copies of the parameters, in flat memory of their own."""
        parameters = copy.deepcopy(self.parameters, memo)
        gradients = [p.grad.array for p in parameters if p.grad is not None]
        result = type(self)(parameters)
        if len(gradients) == len(parameters):
            for place, gradient in zip(result.views(result.grad), gradients, strict=True):
                place[...] = gradient
            result.attach_grad()
        return result
