"""Where a backward pass leaves the gradients of leaves when the caller has arrays for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.tensor import Tensor


class GradientSink:
    """Leaf tensors and an array beside each, to which the pass adds their gradients.

    Args:
        tensors: leaves, each once.
        arrays: one for each, of its shape.
        overwrite: the first gradient of a leaf is written instead, over whatever the array holds.

    Raises:
        ValueError: a tensor is given twice.
    """

    def __init__(
        self, tensors: Sequence[Tensor], arrays: Sequence[Any], *, overwrite: bool
    ) -> None:
        self.overwrite = overwrite
        self._arrays = dict(zip(tensors, arrays, strict=True))
        if len(self._arrays) != len(tensors):
            raise ValueError("a tensor was given twice: give each tensor and its array once")
        self._untouched = set(self._arrays) if overwrite else set()

    def places(
        self, inputs: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> tuple[Any | None, ...]:
        """For each input of an op the array that its gradient may be written to, or None.

        A leaf that the op reads twice is offered once: its second gradient is added.
        """
        offered: list[Any | None] = []
        for x, needed in zip(inputs, needs, strict=True):
            place = None
            if needed and x is not None and x in self._untouched:
                place = self._arrays[x]
                taken = any(place is other for other in offered)
                place = None if taken or place.dtype != x.dtype else place
            offered.append(place)
        return tuple(offered)

    def take(self, tensor: Tensor, gradient: Any) -> None:
        """A gradient of `tensor`: its place, if a rule has written there, or another array."""
        if tensor in self._untouched:
            self._untouched.remove(tensor)
            array = self._arrays[tensor]
            if gradient is not array:
                array[...] = gradient
        elif tensor in self._arrays:
            self._arrays[tensor] += gradient

    def so_far(self, tensor: Tensor) -> Any:
        """The array that more of a tensor's gradient may be added to, None if there is none yet."""
        return None if tensor in self._untouched else self._arrays.get(tensor)

    def finish(self) -> None:
        """Zeros for the leaves that got no gradient."""
        for tensor in self._untouched:
            self._arrays[tensor][...] = 0
