"""Reverse-mode differentiation over the graph that `minigrad.engine.apply` records.

`_run` is the backward pass. Nodes are visited in descending order of creation, which is a
topological order, so there is no recursion and a chain of 100,000 ops is fine. Beside the loop
stands the common work that is done once: summing the gradients of a tensor that was used several
times and undoing broadcasting (`_Flow`), and leaving out what leads to nothing wanted (`_Paths`).
Gradients leave it through `minigrad.places`.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minigrad.describe import check_finite
from minigrad.device import device_of, namespace_of
from minigrad.dtypes import widened
from minigrad.errors import GraphFreedError
from minigrad.graph import Forgotten, Node, Variable, require_gradient
from minigrad.ops.summation import sum_of
from minigrad.places import Places, added, through
from minigrad.state import STATE, setting


def _where_it_lies(function: Any) -> Any:
    """Decorator: the GPU is in use on which the first argument, a tensor or several, lies."""

    @functools.wraps(function)
    def there(outputs: Any, *args: Any, **kwargs: Any) -> Any:
        first = outputs if isinstance(outputs, Variable) else next(iter(outputs), None)
        if first is None or first.device.is_in_use:
            return function(outputs, *args, **kwargs)
        with first.device.in_use():
            return function(outputs, *args, **kwargs)

    return there


@_where_it_lies
def backward(
    output: Variable, gradient: Variable | None = None, *, retain_graph: bool = False
) -> None:
    """Add the gradient of `output` to `.grad` of every leaf that requires one.

    Args:
        output: a tensor that depends on a leaf with `requires_grad`.
        gradient: the upstream gradient, of `output`'s shape. May be left out for a single number.
        retain_graph: keep what was saved, so that another backward can run through this graph.

    Raises:
        GraphFreedError: an earlier backward has freed this graph.
        ValueError: `output` does not require a gradient, or is no single number and there is no
            `gradient`.
    """
    _require_graph(output)
    seed = _seed(output, gradient)
    places = Places()
    _run([output], [seed], places, retain_graph=retain_graph)
    for leaf, (array, owned) in places.found.items():
        _accumulate_into(leaf, array, owned)


@_where_it_lies
def grad(
    outputs: Variable | Sequence[Variable],
    inputs: Variable | Sequence[Variable],
    grad_outputs: Variable | Sequence[Variable | None] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> Any:
    """Gradients of the sum of `outputs` with respect to `inputs`; `.grad` is left alone.

    Only the part of the graph between inputs and outputs is visited.

    Args:
        outputs: one tensor or several.
        inputs: one tensor or several, leaves or results of ops.
        grad_outputs: upstream gradients, one for each output; may be left out for single numbers.
        create_graph: make the gradients differentiable themselves, for higher derivatives. The
            textbook pair of each op then runs on tensors.
        retain_graph: keep what was saved; by default it is kept if `create_graph` is.
        allow_unused: give None for an input that the outputs do not depend on, instead of raising.

    Returns:
        One tensor if `inputs` is one tensor, otherwise a tuple in the order of `inputs`.
    """
    output_list = [outputs] if isinstance(outputs, Variable) else list(outputs)
    input_list = [inputs] if isinstance(inputs, Variable) else list(inputs)
    upstream: list[Any]
    if grad_outputs is None:
        upstream = [None] * len(output_list)
    elif isinstance(outputs, Variable) or isinstance(grad_outputs, Variable):
        upstream = [grad_outputs]
    else:
        upstream = list(grad_outputs)
    if len(upstream) != len(output_list):
        raise ValueError(
            f"grad: {len(output_list)} outputs but {len(upstream)} grad_outputs; give one for each."
        )
    for tensor in output_list:
        _require_graph(tensor)
    for position, tensor in enumerate(input_list):
        if not tensor.requires_grad:
            raise ValueError(
                f"grad: input {position} of shape {tensor.shape} does not require a gradient. "
                "Create it with requires_grad=True before it is used."
            )
    seeds = [_seed(t, g, create_graph) for t, g in zip(output_list, upstream, strict=True)]
    retain = create_graph if retain_graph is None else retain_graph
    places, paths = Places(input_list), _Paths(output_list, input_list)
    with setting(grad_enabled=create_graph):
        _run(output_list, seeds, places, paths, retain_graph=retain, create_graph=create_graph)
    found = places.found
    results: list[Variable | None] = []
    for position, tensor in enumerate(input_list):
        if tensor in found:
            value, owned = found[tensor]
            if create_graph:
                results.append(value)
            else:
                results.append(Variable.tensor.wrap(value if owned else value.copy()))
                found[tensor] = value, False  # a tensor that is asked for twice gets a copy
        elif allow_unused:
            results.append(None)
        else:
            raise ValueError(
                f"grad: the outputs do not depend on input {position} of shape {tensor.shape}. "
                "Pass allow_unused=True to get None for it."
            )
    return results[0] if isinstance(inputs, Variable) else tuple(results)


@_where_it_lies
def add_gradients(
    output: Variable, tensors: Sequence[Variable], arrays: Sequence[Any], *, scale: Any = 1.0
) -> None:
    """Add the gradient of `output`, a single number, by each leaf tensor to the array beside it.

    Each gradient is added as soon as it is there and then dropped, so that the gradients of a model
    never lie in memory a second time. `.grad` is left alone, and the graph is freed.

    Args:
        output: a tensor with one element.
        tensors: leaves; those that `output` does not depend on add nothing.
        arrays: one for each, of its shape; they are added to in place.
        scale: multiplies the gradient; a number, or an array that holds one and is `output`'s like.

    Raises:
        GraphFreedError: an earlier backward has freed this graph.
        ValueError: `output` does not require a gradient or is no single number, or a tensor is
            given twice.
    """
    _require_graph(output)
    _run([output], [_seed(output, None, scale=scale)], Places(tensors, arrays))


@_where_it_lies
def write_gradients(
    output: Variable, tensors: Sequence[Variable], arrays: Sequence[Any], *, scale: Any = 1.0
) -> None:
    """As `add_gradients`, but the arrays' old contents are overwritten, so they need not be zeros.

    Kernels that offer `backward_into` (see `minigrad.op`) compute gradients in place there.

    Args:
        output: a tensor with one element.
        tensors: leaves; those that `output` does not depend on get zeros.
        arrays: one for each, of its shape. If an error is raised, what they hold is undefined.
        scale: multiplies the gradient.

    Raises:
        GraphFreedError, ValueError: as `add_gradients`.
    """
    _require_graph(output)
    places = Places(tensors, arrays, overwrite=True)
    _run([output], [_seed(output, None, scale=scale)], places)


def _require_graph(output: Variable) -> None:
    if not output.requires_grad:
        raise ValueError(
            f"the tensor of shape {output.shape} does not require a gradient: no input of its ops "
            "had requires_grad=True, or it was made under no_grad()."
        )


def _seed(
    output: Variable,
    gradient: Any,
    create_graph: bool = False,
    *,
    scale: float = 1.0,
) -> Any:
    """The upstream gradient of `output`, as an array, or as a tensor for `create_graph`.

    If there is no `gradient`, it is `scale`.
    """
    if gradient is None:
        if output.size != 1:
            raise ValueError(
                f"a tensor of shape {output.shape} needs an upstream gradient of the same shape: "
                "pass one, or reduce it first, for example with .sum()."
            )
        if not isinstance(scale, (int, float)):
            return scale
        seed = namespace_of(output.array).full(output.shape, scale, output.dtype)
        return Variable.tensor.wrap(seed) if create_graph else seed
    if not isinstance(gradient, Variable):
        gradient = Variable.tensor(np.asarray(gradient, dtype=output.dtype), device=output.device)
    gradient = gradient.astype(output.dtype)
    if gradient.shape != output.shape:
        raise ValueError(
            f"the upstream gradient has shape {gradient.shape}, the output {output.shape}."
        )
    return gradient if create_graph else gradient.array


def _run(
    outputs: list[Any],
    seeds: list[Any],
    places: Places,
    paths: _Paths | None = None,
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> None:
    """The backward pass: gradients flow from `outputs` through all nodes to `places`.

    They are arrays, or tensors for `create_graph`.
    """
    flow = _Flow(places, paths, create_graph)
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


class _Flow:
    """The gradients that are on their way.

    `pending` maps a node to the gradient of its output so far, and whether that array is ours; the
    heap gives the youngest node next, whose gradient is then complete.
    """

    def __init__(self, places: Places, paths: _Paths | None, create_graph: bool) -> None:
        self._places, self._paths, self._create_graph = places, paths, create_graph
        self._pending: dict[Node, tuple[Any, bool]] = {}
        self.waiting: list[tuple[int, Node]] = []
        # The node of an input whose gradient the last kernel has added to what had arrived there.
        self._replaced: Node | None = None

    def send(self, x: Any, gradient: Any, owned: bool) -> None:
        """A gradient of `x`, which may be added to in place if it is `owned`."""
        node = x.node
        if node is None:
            self._places.take(x, gradient, owned)
        elif node in self._pending:
            self._pending[node] = added(self._pending[node], gradient, owned)
        elif self._paths is None or node in self._paths.useful:
            heapq.heappush(self.waiting, (-node.order, node))
            self._pending[node] = gradient, owned

    def next(self) -> tuple[Node, Any]:
        """The youngest node and the gradient of its output."""
        node = heapq.heappop(self.waiting)[1]
        dy, owned = self._pending.pop(node)
        if node.hooks:
            dy, owned = through(node.hooks, dy, owned)
        if self._paths is not None and node in self._paths.wanted:
            self._places.found[self._paths.wanted[node]] = dy, False
        return node, dy

    def through(self, node: Node, dy: Any, needs: tuple[bool, ...]) -> Any:
        """The gradients of a node's inputs; None if they are where they belong already."""
        if self._create_graph:
            return _backward_on_tensors(node, dy, needs)
        rule = node.rule
        if node.low:
            dy = widened(dy)
        if node.xp is not None:
            # A part of a tensor adds to the sum of the whole: n parts cost as much as one gradient.
            if rule.add_backward is not None and not STATE.detect_nan:
                total, owned = self._so_far(node.inputs[0])
                if owned:
                    rule.add_backward(node.xp, total, dy, **node.statics)
                    return None
            return tuple(rule.backward(node.xp, dy, node.saved, needs, **node.statics))
        statics = node.statics
        if not node.low and hasattr(rule, "ADDS_TO") and needs[rule.ADDS_TO]:
            x = node.inputs[rule.ADDS_TO]
            total = None if x is None or x.node is None else self._so_far(x)[0]
            if total is not None and total.shape == x.shape and total.dtype == x.dtype:
                statics, self._replaced = {**statics, "so_far": total}, x.node
        if self._places.overwrite and not node.low and hasattr(rule, "backward_into"):
            offered = self._places.offered(node.inputs, needs)
            return tuple(rule.backward_into(dy, node.saved, needs, offered, **statics))
        return tuple(rule.backward(dy, node.saved, needs, **statics))

    def spread(
        self,
        node: Node,
        inputs: tuple[Any, ...],
        needs: tuple[bool, ...],
        gradients: tuple[Any, ...],
        dy: Any,
        saved: Any,
    ) -> None:
        """Send the gradients that a rule has returned, in the shapes and dtypes of its inputs."""
        on_arrays = not self._create_graph
        for position, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
            if gradient is None or not needs[position]:
                continue
            if isinstance(gradient, np.generic):  # NumPy turns 0-d results into scalars
                gradient = np.asarray(gradient)
            fresh = on_arrays and _is_fresh(node, position, gradients, dy, saved)
            if gradient.shape != x.shape:
                gradient, fresh = unbroadcast(gradient, x.shape), on_arrays
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
        """What has arrived at a tensor, and whether it is ours; (None, False) if nothing."""
        arrived = self._places.found.get(x) if x.node is None else self._pending.get(x.node)
        return (None, False) if arrived is None else arrived


class _Paths:
    """The part of a graph that leads to tensors that are wanted.

    Attributes:
        wanted: the nodes of those that are results of ops.
        useful: the nodes through which a gradient flows to a wanted tensor. The value is False for
            a wanted tensor's own node if nothing below it is wanted as well.
    """

    def __init__(self, outputs: Iterable[Variable], wanted: Iterable[Variable]) -> None:
        self.wanted = {x.node: x for x in wanted if x.node is not None}
        self._leaves = {x for x in wanted if x.node is None}
        reachable: dict[Node, None] = {}
        stack = [x.node for x in outputs if x.node is not None]
        while stack:
            node = stack.pop()
            if node not in reachable:
                reachable[node] = None
                node.check_kept()
                stack.extend(x.node for x in node.inputs if x is not None and x.node is not None)
        self.useful: dict[Node, bool] = {}
        for node in sorted(reachable, key=lambda n: n.order):
            leads = any(x is not None and self._leads(x) for x in node.inputs)
            if leads or node in self.wanted:
                self.useful[node] = leads

    def _leads(self, x: Any) -> bool:
        return x in self._leaves or x.node in self.useful

    def end_at(self, node: Node) -> bool:
        """Whether nothing below a node is wanted."""
        return not self.useful[node]

    def needs_of(self, node: Node) -> tuple[bool, ...]:
        pairs = zip(node.needs, node.inputs, strict=True)
        return tuple([needed and self._leads(x) for needed, x in pairs])


def _backward_on_tensors(node: Node, dy: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    """The textbook on tensors: forward again, so that what it saves is part of the graph."""
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
        return tuple(rule.backward(functions, dy, saved, needs, **node.statics))


def unbroadcast(gradient: Any, shape: tuple[int, ...]) -> Any:
    """Sum `gradient` over the axes along which an input of `shape` was broadcast."""
    xp = Variable.functions if isinstance(gradient, Variable) else namespace_of(gradient)
    extra = gradient.ndim - len(shape)
    if extra:
        gradient = sum_of(xp, gradient, tuple(range(extra)))
    stretched = tuple(
        axis for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis] != 1
    )
    if stretched:
        gradient = sum_of(xp, gradient, stretched, keepdims=True)
    if isinstance(gradient, np.generic):
        gradient = np.asarray(gradient)
    assert gradient.shape == shape, f"gradient {gradient.shape} for an input of shape {shape}"
    return gradient


def _is_fresh(node: Node, position: int, gradients: tuple[Any, ...], dy: Any, saved: Any) -> bool:
    """True if nobody else can hold gradient `position`, so that the pass may add into it.

    A kernel promises fresh memory unless it returns one array twice; a textbook pair may return
    `dy` itself, a view, or something that it saved.
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


def _accumulate_into(leaf: Variable, array: Any, owned: bool) -> None:
    """Add a finished gradient to `leaf.grad`, which owns its memory."""
    if array.dtype != leaf.dtype:
        array, owned = array.astype(leaf.dtype), True
    if leaf.grad is None:
        leaf.grad = Variable.tensor.wrap(array if owned else array.copy())
    else:
        require_gradient(leaf)
        leaf.grad.array += array
        leaf.grad.changed()


__all__ = [
    "add_gradients",
    "backward",
    "grad",
    "unbroadcast",
    "write_gradients",
]
