"""The graph that a forward pass leaves behind: variables, and a node for each recorded op.

A `Variable` is the part of a tensor that the engine needs. `minigrad.engine` records variables and
`minigrad.autograd` walks back through them. `minigrad.tensor` builds on both: a `Tensor` is a
variable with operators and methods.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from minigrad.device import Device, device_of
from minigrad.errors import GraphFreedError, InPlaceError, ShapeError
from minigrad.state import STATE
from minigrad.version import Seen, Version

FREED = object()  # what `Node.saved` is once a backward pass has used it up


class Variable:
    """The part of a tensor that the engine needs.

    Attributes:
        array: the NumPy or CuPy array. Call `changed()` after writing to it.
        grad: the gradient that backward passes have added up, or None.
        requires_grad: whether gradients flow to or through it.
        node: the recorded op that made it, None for a leaf.
        version: counts the changes of the memory, with all that share it.
        leaf_hooks: functions that a leaf's gradient goes through.
        tensor: the class of all results, `minigrad.Tensor`.
        functions: the array functions that take them, `minigrad.functions`.
    """

    __slots__ = ("__weakref__", "array", "grad", "leaf_hooks", "node", "requires_grad", "version")

    tensor: ClassVar[Any]
    functions: ClassVar[Any]

    array: Any
    grad: Any
    leaf_hooks: tuple[Callable[[Any], Any], ...]
    node: Node | None
    requires_grad: bool
    version: Version

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def size(self) -> int:
        return self.array.size

    @property
    def device(self) -> Device:
        return device_of(self.array)

    def changed(self) -> None:
        """Count a change of the memory: graphs that have read the old values become invalid.

        Call it after writing to `array`, or on a GPU to the array that `data` gave.
        """
        self.version.number += 1

    def move(self, array: Any) -> None:
        """Put the values into `array`, which only the engine uses."""
        self.array, self.version = array, Version(self.version.number + 1)


def require_floats(*tensors: Variable | None) -> None:
    """Raise TypeError if a tensor of integers or booleans requires a gradient."""
    for x in tensors:
        if x is not None and x.requires_grad and x.dtype.kind != "f":
            raise TypeError(
                f"a tensor of dtype {x.dtype} cannot require a gradient: gradients are defined for "
                "floats. Convert it with .astype('float32')."
            )


def require_gradient(x: Variable) -> None:
    """Raise unless `x.grad`, which users may set, is a gradient of x.

    Raises:
        TypeError: it is not a tensor.
        ShapeError: it has another shape, which broadcasting could hide.
    """
    if not isinstance(x.grad, Variable):
        raise TypeError(
            f".grad of a tensor is a Tensor or None, not a {type(x.grad).__name__}: assign "
            "Tensor(values)"
        )
    if x.grad.array.shape != x.array.shape:
        raise ShapeError(f".grad has shape {x.grad.shape}, the tensor {x.shape}")


class Forgotten:
    """Stands for a tensor that an op has read, but does not keep its array alive."""

    __slots__ = ("dtype", "node", "requires_grad", "shape", "version")

    def __init__(self, x: Variable) -> None:
        self.node, self.version, self.requires_grad = x.node, x.version, x.requires_grad
        self.dtype, self.shape = x.dtype, x.shape


class Node:
    """One recorded op: what its backward needs, and the tensors that it read.

    Attributes:
        op: the op.
        order: a number that grows with creation, so descending order is a topological order.
        rule: the implementation that ran, textbook or kernel.
        xp: the array namespace if `rule` is the textbook, None if it is a kernel.
        low: whether an input of float16 was widened before the rule ran (see `minigrad.dtypes`).
        saved: what forward saved for backward; `FREED` after a backward pass has used it.
        needs: for each input, whether a gradient is wanted.
        versions: the version numbers of the inputs when the op ran.
        seen: checksums of the inputs whose memory code outside of the engine can write to.
        result: the version of the op's own result if that was saved, and its number at that time.
        modules: the modules that were running (kept under `detect_nan` only).
        hooks: functions that the gradient of the result goes through.
    """

    __slots__ = (
        *("hooks", "inputs", "low", "modules", "needs", "op", "order"),
        *("result", "rule", "saved", "seen", "statics", "versions", "xp"),
    )

    counter: itertools.count[int] = itertools.count()

    def __init__(
        self,
        op: Any,  # a `minigrad.op.Op`
        rule: Any,
        xp: Any,
        inputs: tuple[Any, ...],  # tensors, None for an optional input that is not given
        statics: dict[str, Any],
        saved: Any,
        needs: tuple[bool, ...],
        low: bool,
    ) -> None:
        self.order: int = next(Node.counter)
        self.op = op
        self.rule = rule
        self.xp = xp
        self.inputs: tuple[Any, ...] = inputs
        self.statics = statics
        self.saved: Any = saved
        self.needs = needs
        self.low = low
        self.versions: list[int | None] = []
        self.seen: dict[int, Seen] | None = None
        self.result: tuple[Version, int] | None = None
        self.modules: tuple[Any, ...] = STATE.modules
        self.hooks: tuple[Callable[[Any], Any], ...] = ()

    def watch(self, inputs: tuple[Any, ...], result: Any) -> None:
        """Remember what `check` will look for (see `minigrad.version`)."""
        for position, x in enumerate(inputs):
            if x is None:
                self.versions.append(None)
                continue
            version = x.version
            self.versions.append(version.number)
            version.read = True
            if version.outside and isinstance(x.array, np.ndarray):
                self.seen = self.seen or {}
                self.seen[position] = Seen(x.array)
        if _holds(self.saved, result.array):
            result.version.read = True
            self.result = result.version, result.version.number

    def free(self) -> None:
        """Drop what was saved, so that its memory can be used again."""
        self.saved, self.inputs = FREED, ()

    def check_kept(self) -> None:
        """Raise `GraphFreedError` if a backward pass has used up what was saved."""
        if self.saved is FREED:
            raise GraphFreedError(
                f"backward reached {self.op.name!r}, whose saved arrays an earlier backward has "
                "freed. Run the forward pass again, or pass retain_graph=True to the earlier "
                "backward."
            )

    def check(self) -> None:
        """Raise unless what this op read and saved is still there and unchanged.

        Raises:
            GraphFreedError: a backward pass has used it up.
            InPlaceError: it was changed.
        """
        if self.saved is FREED:
            self.check_kept()
        arrays = self.seen or {}
        for position, (x, number) in enumerate(zip(self.inputs, self.versions, strict=True)):
            if x is None:
                continue
            version = x.version
            same = version.number == number
            if same and version.outside:
                same = arrays.get(position, version).untouched()
            if not same:
                raise self._changed(f"its input {position} of shape {x.shape}")
        if self.result is not None:
            version, number = self.result
            if version.number != number or not version.untouched():
                raise self._changed("its result")

    def _changed(self, what: str) -> InPlaceError:
        return InPlaceError(
            f"backward of {self.op.name!r}: {what} was changed in place after the forward pass, so "
            "the gradient would be wrong. Run the forward pass again after the change, or change "
            "a copy."
        )


def _holds(saved: Any, array: Any) -> bool:
    """Whether `array` or a view of its memory is among what an op saved."""
    if saved is None:
        return False
    owner = array if array.base is None else array.base
    for x in saved if isinstance(saved, (tuple, list)) else (saved,):
        if x is array or x is owner or getattr(x, "base", None) is owner:
            return True
    return False
