"""The backward pass: gradients flow from outputs through a recorded graph to where they are wanted.

Nodes are visited from the newest to the oldest, which is a topological order. So there is no
recursion, and a chain of 100,000 ops is fine. `run` is the loop. `Flow` does the work that all ops
share: it sums the gradients of a tensor that was used several times, undoes broadcasting, and calls
the backward of the implementation that ran forward. `minigrad.paths` finds the nodes that lead to
nothing wanted, and `minigrad.places` collects the gradients that leave the graph.
"""

from __future__ import annotations

import functools
import heapq
from typing import Any

import numpy as np

from minigrad.describe import check_finite, listed
from minigrad.device import device_of, namespace_of
from minigrad.dtypes import widened
from minigrad.errors import GraphFreedError, ShapeError
from minigrad.graph import Forgotten, Node, Variable
from minigrad.ops.summation import sum_of
from minigrad.paths import Paths
from minigrad.places import Places, added, through
from minigrad.state import STATE, setting


def run(
    outputs: list[Any],
    seeds: list[Any],
    places: Places,
    paths: Paths | None = None,
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> None:
    """The backward pass: gradients flow from `outputs` through all nodes to `places`.

    With `create_graph` the gradients are tensors, otherwise arrays.
    """
    flow = Flow(places, paths, create_graph)
    for output, seed in zip(outputs, seeds, strict=True):
        flow.send(output, seed, False)
    while flow.waiting:
        node, dy = flow.next()
        if paths is not None and paths.end_at(node):
            continue
        node.check()
        needs = node.needs if paths is None else paths.needs_of(node)
        inputs, saved = node.inputs, node.saved
        gradients = flow.through(node, dy, needs)
        if not retain_graph:
            node.free()
        if gradients is not None:
            flow.spread(node, inputs, needs, gradients, dy, saved)
    places.finish()


class Flow:
    """The gradients that have not reached their leaves yet.

    `_pending` maps a node to the gradient of its output so far, and whether we may modify that
    array in place. `waiting` is a heap that pops the newest node: all its consumers are done.
    """

    def __init__(self, places: Places, paths: Paths | None, create_graph: bool) -> None:
        self._places, self._paths, self._create_graph = places, paths, create_graph
        self._pending: dict[Node, tuple[Any, bool]] = {}
        self.waiting: list[tuple[int, Node]] = []
        # The node whose pending gradient the last kernel has included in what it returned.
        self._replaced: Node | None = None

    def send(self, x: Any, gradient: Any, owned: bool) -> None:
        """Add a gradient of `x`. We may modify its array in place if it is `owned`."""
        node = x.node
        if node is None:
            self._places.take(x, gradient, owned)
        elif node in self._pending:
            self._pending[node] = added(self._pending[node], gradient, owned)
        elif self._paths is None or node in self._paths.useful:
            heapq.heappush(self.waiting, (-node.order, node))
            self._pending[node] = gradient, owned

    def next(self) -> tuple[Node, Any]:
        """The newest node that waits, and the gradient of its output."""
        node = heapq.heappop(self.waiting)[1]
        dy, owned = self._pending.pop(node)
        if node.hooks:
            dy, owned = through(node.hooks, dy, owned)
        if self._paths is not None and node in self._paths.wanted:
            self._places.found[self._paths.wanted[node]] = dy, False
        return node, dy

    def through(self, node: Node, dy: Any, needs: tuple[bool, ...]) -> Any:
        """The gradients of a node's inputs; None if they have been added in place already."""
        if self._create_graph:
            return _backward_on_tensors(node, dy, needs)
        rule = node.rule
        if node.low:
            dy = widened(dy)
        if node.xp is not None:
            # An op that read a part adds to the sum for the whole: n parts cost one full gradient.
            if rule.add_backward is not None and not STATE.detect_nan:
                total, owned = self._so_far(node.inputs[0])
                if owned:
                    rule.add_backward(node.xp, total, dy, **node.statics)
                    return None
            return listed(node, rule.backward(node.xp, dy, node.saved, needs, **node.statics))
        statics = node.statics
        into = _adds_to(rule)
        if into is not None and not node.low and needs[into]:
            x = node.inputs[into]
            total = None if x is None or x.node is None else self._so_far(x)[0]
            if total is not None and total.shape == x.shape and total.dtype == x.dtype:
                statics, self._replaced = {**statics, "so_far": total}, x.node
        if self._places.overwrite and not node.low and hasattr(rule, "backward_into"):
            offered = self._places.offered(node.inputs, needs)
            return listed(node, rule.backward_into(dy, node.saved, needs, offered, **statics))
        return listed(node, rule.backward(dy, node.saved, needs, **statics))

    def spread(
        self,
        node: Node,
        inputs: tuple[Any, ...],
        needs: tuple[bool, ...],
        gradients: tuple[Any, ...],
        dy: Any,
        saved: Any,
    ) -> None:
        """Send on what a backward has returned, in the shapes and dtypes of the op's inputs."""
        on_arrays = not self._create_graph
        for position, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
            if gradient is None or not needs[position]:
                continue
            if isinstance(gradient, np.generic):  # NumPy turns 0-d results into scalars
                gradient = np.asarray(gradient)
            fresh = on_arrays and _is_fresh(node, position, gradients, dy, saved)
            if gradient.shape != x.shape:
                gradient, fresh = unbroadcast(gradient, x.shape, node.op.name), on_arrays
            if gradient.dtype != x.dtype:
                gradient, fresh = gradient.astype(x.dtype), on_arrays
            if STATE.detect_nan:
                array = gradient if on_arrays else gradient.array
                check_finite(node.op, "backward", array, inputs, node.statics, node.modules)
            if self._replaced is not None and position == node.rule.ADDS_TO:
                self._pending[self._replaced], self._replaced = (gradient, True), None
            else:
                self.send(x, gradient, fresh)

    def _so_far(self, x: Any) -> tuple[Any, bool]:
        """The gradient of a tensor so far, and whether we own its array; or (None, False)."""
        arrived = self._places.found.get(x) if x.node is None else self._pending.get(x.node)
        return (None, False) if arrived is None else arrived


def _backward_on_tensors(node: Node, dy: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    """Run the textbook on tensors. Forward runs again, so that `saved` is part of the graph."""
    if any(isinstance(x, Forgotten) for x in node.inputs):
        raise GraphFreedError(
            f"create_graph=True reached {node.op.name!r}, which was recorded under first_order() "
            "and has not kept its inputs. Run the forward pass outside of that block."
        )
    rule, functions = node.op, Variable.functions
    with setting(grad_enabled=True), functions.default_device(device_of(dy.array)):
        inputs: Any = node.inputs
        if node.low:
            dy, *inputs = (widened(x) for x in (dy, *inputs))
        _, saved = rule.forward(functions, *inputs, **node.statics)
        return listed(node, rule.backward(functions, dy, saved, needs, **node.statics))


@functools.cache
def _adds_to(rule: Any) -> int | None:
    """The input whose gradient so far a kernel takes. Kept, as a module is slow to say that it has
    no such name."""
    return getattr(rule, "ADDS_TO", None)


def unbroadcast(gradient: Any, shape: tuple[int, ...], op: str) -> Any:
    """Sum a gradient over the axes along which an input of `shape` was broadcast."""
    given = gradient.shape
    xp = Variable.functions if isinstance(gradient, Variable) else namespace_of(gradient)
    extra = gradient.ndim - len(shape)
    if extra > 0:
        gradient = sum_of(xp, gradient, tuple(range(extra)))
    axes = range(len(shape)) if extra >= 0 else ()
    stretched = tuple(axis for axis in axes if shape[axis] == 1 and gradient.shape[axis] != 1)
    if stretched:
        gradient = sum_of(xp, gradient, stretched, keepdims=True)
    if isinstance(gradient, np.generic):
        gradient = np.asarray(gradient)
    if gradient.shape != shape:
        raise ShapeError(f"backward of the op {op!r}: gradient {given} for an input {shape}")
    return gradient


def _is_fresh(node: Node, position: int, gradients: tuple[Any, ...], dy: Any, saved: Any) -> bool:
    """True if nothing else uses gradient number `position`, so that we may add into it.

    A kernel returns new memory, unless it returns one array twice. The textbook may return `dy`
    itself, a view, or something that it saved.
    """
    array = gradients[position]
    if array is dy:
        return False
    for i, other in enumerate(gradients):
        if other is array and i != position:
            return False
    if node.xp is None:
        return True
    kept = saved if isinstance(saved, (tuple, list)) else (saved,)
    return getattr(array, "base", None) is None and not any(array is s for s in kept)
