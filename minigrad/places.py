"""The output buffers of a backward pass, where its gradients are collected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.errors import ShapeError
from minigrad.graph import Variable


class Places:
    """A place for the gradient of each tensor that is wanted.

    Args:
        tensors: leaves, or results of ops; None for whatever leaf a gradient arrives at.
        arrays: one for each (which are leaves then), of its shape. Gradients are added to them.
        overwrite: what they hold is garbage, which the first gradient is written over.

    Attributes:
        found: the gradient of each tensor so far, and whether it may be added to in place.

    Raises:
        ValueError: arrays are given, and a tensor twice.
    """

    def __init__(
        self,
        tensors: Sequence[Variable] | None = None,
        arrays: Sequence[Any] | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self.overwrite = overwrite
        self.found: dict[Variable, tuple[Any, bool]] = {}
        self._wanted = None if tensors is None else set(tensors)
        self._garbage: dict[Variable, Any] = {}
        self._aside: dict[Variable, Any] = {}  # arrays of leaves whose gradient hooks come between
        if arrays is None or tensors is None or self._wanted is None:
            return
        if len(self._wanted) != len(tensors):
            raise ValueError("a tensor was given twice: give each tensor and its array once")
        for x, array in zip(tensors, arrays, strict=True):
            if x.leaf_hooks:
                self._aside[x] = array
            elif overwrite:
                self._garbage[x] = array
            else:
                self.found[x] = array, True

    def take(self, x: Variable, gradient: Any, owned: bool) -> None:
        """A gradient of `x`: its place, if a kernel has written there, or another array."""
        if x in self._garbage:
            array = self._garbage.pop(x)
            if gradient is not array:
                array[...] = gradient
            self.found[x] = array, True
        elif self._wanted is None or x in self._wanted:
            self.found[x] = added(self.found.get(x), gradient, owned)

    def offered(
        self, inputs: Sequence[Variable | None], needs: Sequence[bool]
    ) -> tuple[Any | None, ...]:
        """For each input of an op the output buffer for its gradient, or None.

        If the op reads a leaf twice, its buffer is given once; the second gradient is added.
        """
        offered: list[Any | None] = []
        for x, needed in zip(inputs, needs, strict=True):
            place = self._garbage.get(x) if needed and x is not None else None
            if place is not None:
                twice = any([place is other for other in offered])
                place = None if twice or place.dtype != x.dtype else place  # type: ignore[union-attr]
            offered.append(place)
        return tuple(offered)

    def finish(self) -> None:
        """After the last gradient: call the hooks of leaves, and put zeros where there was no
        gradient."""
        for x, array in self._garbage.items():
            array[...] = 0
            self.found[x] = array, True
        for x in [x for x in self.found if x.leaf_hooks and x.node is None]:
            self.found[x] = through(x.leaf_hooks, *self.found[x])
        for x, array in self._aside.items():
            gradient, _ = self.found.get(x, (0, False))
            if self.overwrite:
                array[...] = gradient
            else:
                array += gradient
            self.found[x] = array, True


def added(so_far: tuple[Any, bool] | None, gradient: Any, owned: bool) -> tuple[Any, bool]:
    """The sum of two gradients, and whether we own it; in place if we own one of them."""
    if so_far is None:
        return gradient, owned
    total, total_owned = so_far
    if total_owned:
        total += gradient
        return total, True
    if owned:
        gradient += total
        return gradient, True
    total = total + gradient
    if isinstance(total, np.generic):  # the sum of two 0-d arrays
        total = np.asarray(total)
    return total, not isinstance(total, Variable)


def through(hooks: Sequence[Callable[[Any], Any]], gradient: Any, owned: bool) -> tuple[Any, bool]:
    """A finished gradient after the functions of `Tensor.register_hook`.

    Raises:
        TypeError: a hook returns neither a tensor nor None.
        ShapeError: it returns a tensor of another shape.
    """
    for hook in hooks:
        on_arrays = not isinstance(gradient, Variable)
        given = Variable.tensor.wrap(gradient) if on_arrays else gradient
        changed = hook(given)
        owned = False  # the hook may have kept it
        if changed is None:
            continue
        if not isinstance(changed, Variable):
            raise TypeError(
                f"a gradient's hook gives a Tensor or None, not a {type(changed).__name__}"
            )
        if changed.shape != given.shape:
            raise ShapeError(
                f"a gradient's hook gave a tensor of shape {changed.shape} for a gradient of "
                f"shape {given.shape}"
            )
        if changed.dtype != given.dtype:
            changed = changed.astype(given.dtype)  # type: ignore[attr-defined]
        gradient = changed.array if on_arrays else changed
    return gradient, owned
