"""The graph that a forward pass leaves behind: a node for each op that was recorded.

A tensor knows its node, so this file stands below `minigrad.tensor` and names no type of it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from minigrad.errors import InPlaceError
from minigrad.state import STATE
from minigrad.version import Seen, Version

FREED = object()  # what `Node.saved` is once a backward pass has used it up


class Forgotten:
    """A tensor that an op read, without its array."""

    __slots__ = ("_node", "_version", "dtype", "requires_grad", "shape")

    def __init__(self, x: Any) -> None:
        self._node, self._version, self.requires_grad = x._node, x._version, x.requires_grad
        self.dtype, self.shape = x.dtype, x.shape


class Node:
    """One recorded op: what its backward needs, and the tensors that it read.

    Attributes:
        op: the op.
        order: a number that grows with creation, so descending order is a topological order.
        rule: the pair (forward, backward) that ran.
        xp: the array namespace if `rule` is a textbook pair, None if it is a kernel.
        low: whether an input of float16 was widened before the rule ran (see `minigrad.dtypes`).
        saved: what forward left for backward; `FREED` once a backward has used it up.
        needs: for each input, whether a gradient is wanted.
        versions: what the version counters of the inputs were when the op ran.
        seen: what the inputs were whose memory somebody outside of the engine could write to.
        result: the version of the op's own result if that was saved, and what its counter was.
        modules: the modules that were running (kept under `detect_nan` only).
    """

    __slots__ = (
        "inputs",
        "low",
        "modules",
        "needs",
        "op",
        "order",
        "result",
        "rule",
        "saved",
        "seen",
        "statics",
        "versions",
        "xp",
    )

    counter = itertools.count()

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
        self.order = next(Node.counter)
        self.op = op
        self.rule = rule
        self.xp = xp
        self.inputs = inputs
        self.statics = statics
        self.saved = saved
        self.needs = needs
        self.low = low
        self.versions: list[int | None] = []
        self.seen: dict[int, Seen] | None = None
        self.result: tuple[Version, int] | None = None
        self.modules = STATE.modules

    def watch(self, inputs: tuple[Any, ...], result: Any) -> None:
        """Remember what `check_versions` will look for (see `minigrad.version`)."""
        for position, x in enumerate(inputs):
            if x is None:
                self.versions.append(None)
                continue
            version = x._version
            self.versions.append(version.number)
            version.read = True
            if version.outside and isinstance(x.array, np.ndarray):
                self.seen = self.seen or {}
                self.seen[position] = Seen(x.array)
        if _holds(self.saved, result.array):
            result._version.read = True
            self.result = result._version, result._version.number

    def check_versions(self) -> None:
        """Raise if something that this op read or saved was changed after it ran."""
        arrays = self.seen or {}
        for position, (x, number) in enumerate(zip(self.inputs, self.versions, strict=True)):
            if x is None:
                continue
            version = x._version
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
