"""Reverse-mode differentiation over the graph that `minigrad.engine.apply` records.

Nodes are visited in descending order of creation, which is a topological order, so there is no
recursion and a chain of 100,000 ops is fine. The pass does the common work once: undoing
broadcasting, summing the gradients of a tensor that was used several times (in place only on arrays
that it made itself), and dropping what was saved as soon as it has been used.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minigrad import functions
from minigrad.describe import check_finite
from minigrad.device import device_of, namespace_of
from minigrad.dtypes import widened
from minigrad.errors import GraphFreedError
from minigrad.gradient_sink import GradientSink
from minigrad.graph import FREED, Forgotten, Node
from minigrad.ops.summation import sum_of
from minigrad.state import STATE, setting
from minigrad.tensor import Tensor, require_gradient


def _where_it_lies(function: Any) -> Any:
    """Decorator: the GPU is in use on which the first argument, a tensor or several, lies."""

    @functools.wraps(function)
    def there(outputs: Any, *args: Any, **kwargs: Any) -> Any:
        first = outputs if isinstance(outputs, Tensor) else next(iter(outputs), None)
        if first is None or first.device.is_in_use:
            return function(outputs, *args, **kwargs)
        with first.device.in_use():
            return function(outputs, *args, **kwargs)

    return there


@_where_it_lies
def backward(output: Tensor, gradient: Tensor | None = None, *, retain_graph: bool = False) -> None:
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
    leaves = _run([output], [seed], retain_graph=retain_graph)
    for leaf, (array, owned) in leaves.items():
        _accumulate_into(leaf, array, owned)


@_where_it_lies
def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
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
    output_list = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    input_list = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    upstream: list[Any]
    if grad_outputs is None:
        upstream = [None] * len(output_list)
    elif isinstance(outputs, Tensor) or isinstance(grad_outputs, Tensor):
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
    with setting(grad_enabled=create_graph):
        found = _run(
            output_list, seeds, retain_graph=retain, create_graph=create_graph, wanted=input_list
        )
    results: list[Tensor | None] = []
    for position, tensor in enumerate(input_list):
        if tensor in found:
            value, owned = found[tensor]
            if create_graph:
                results.append(value)
            else:
                results.append(Tensor.wrap(value if owned else value.copy()))
                found[tensor] = value, False  # a tensor that is asked for twice gets a copy
        elif allow_unused:
            results.append(None)
        else:
            raise ValueError(
                f"grad: the outputs do not depend on input {position} of shape {tensor.shape}. "
                "Pass allow_unused=True to get None for it."
            )
    return results[0] if isinstance(inputs, Tensor) else tuple(results)


@_where_it_lies
def add_gradients(
    output: Tensor, tensors: Sequence[Tensor], arrays: Sequence[Any], *, scale: Any = 1.0
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
    sink = GradientSink(tensors, arrays, overwrite=False)
    _run([output], [_seed(output, None, scale=scale)], retain_graph=False, sink=sink)


@_where_it_lies
def write_gradients(
    output: Tensor, tensors: Sequence[Tensor], arrays: Sequence[Any], *, scale: Any = 1.0
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
    sink = GradientSink(tensors, arrays, overwrite=True)
    _run([output], [_seed(output, None, scale=scale)], retain_graph=False, sink=sink)
    sink.finish()


def value_and_grad(
    function: Callable[..., Tensor],
    wrt: Iterable[Tensor] | None = None,
    *,
    create_graph: bool = False,
) -> Callable[..., tuple[Tensor, Any]]:
    """Turn `function` into one that returns its value and its gradient.

    Nothing is written to the tensors, so several threads can differentiate the same model at once.

    Args:
        function: maps tensors to a tensor with a single number.
        wrt: the tensors to differentiate by, for example `model.parameters()`. Left out, the
            gradient is taken with respect to the function's first argument.
        create_graph: make the gradients differentiable.

    Returns:
        A function of the same arguments that gives `(value, gradient)`; the gradient is a tuple if
        `wrt` is given (None for a tensor that the value does not depend on), else one tensor.
    """
    tensors = None if wrt is None else list(wrt)

    def differentiated(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        if tensors is not None:
            value = function(*args, **kwargs)
            return _detached(value), grad(
                value, tensors, create_graph=create_graph, allow_unused=True
            )
        if not args or not isinstance(args[0], Tensor):
            raise TypeError("value_and_grad: the function's first argument must be a Tensor.")
        x = args[0]
        if not x.requires_grad:
            x = x.detach()
            x.requires_grad = True
        value = function(x, *args[1:], **kwargs)
        return _detached(value), grad(value, x, create_graph=create_graph)

    def _detached(value: Tensor) -> Tensor:
        return value if create_graph else value.detach()

    return differentiated


def _require_graph(output: Tensor) -> None:
    if not output.requires_grad:
        raise ValueError(
            f"the tensor of shape {output.shape} does not require a gradient: no input of its ops "
            "had requires_grad=True, or it was made under no_grad()."
        )


def _seed(
    output: Tensor,
    gradient: Tensor | None,
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
        return Tensor.wrap(seed) if create_graph else seed
    if not isinstance(gradient, Tensor):
        gradient = Tensor(np.asarray(gradient, dtype=output.dtype), device=output.device)
    gradient = gradient.astype(output.dtype)
    if gradient.shape != output.shape:
        raise ValueError(
            f"the upstream gradient has shape {gradient.shape}, the output {output.shape}."
        )
    return gradient if create_graph else gradient.array


def _run(
    outputs: list[Tensor],
    seeds: list[Any],
    *,
    retain_graph: bool,
    create_graph: bool = False,
    wanted: list[Tensor] | None = None,
    sink: GradientSink | None = None,
) -> dict[Tensor, tuple[Any, bool]]:
    """The backward pass. Returns each leaf's (or wanted tensor's) gradient and if it is ours.

    Gradients are arrays, or tensors for `create_graph`. `pending` maps a node to the gradient of
    its output so far; the heap gives the youngest node next, whose gradient is then complete. With
    a `sink`, leaves' gradients go there instead of being returned.
    """
    useful = None if wanted is None else _nodes_between(outputs, wanted)
    wanted_nodes = {t._node: t for t in wanted or [] if t._node is not None}
    wanted_leaves = {t for t in wanted or [] if t._node is None}
    results: dict[Tensor, tuple[Any, bool]] = {}
    pending: dict[Node, tuple[Any, bool]] = {}
    heap: list[tuple[int, Node]] = []

    def send(tensor: Tensor, gradient: Any, owned: bool) -> None:
        node = tensor._node
        if node is None:
            if sink is not None:
                sink.take(tensor, gradient)
            elif wanted is None or tensor in wanted_leaves:
                results[tensor] = _added(results.get(tensor), gradient, owned)
            return
        if useful is not None and node not in useful:
            return
        if node not in pending:
            heapq.heappush(heap, (-node.order, node))
        pending[node] = _added(pending.get(node), gradient, owned)

    def arrived(tensor: Tensor) -> Any:
        """What has arrived at a tensor so far, if it is an array of ours; else None."""
        if tensor._node is None and sink is not None:
            return sink.so_far(tensor)
        found = results.get(tensor) if tensor._node is None else pending.get(tensor._node)
        return None if found is None or not found[1] else found[0]

    for output, seed in zip(outputs, seeds, strict=True):
        send(output, seed, False)
    while heap:
        _, node = heapq.heappop(heap)
        dy, _ = pending.pop(node)
        if node in wanted_nodes:
            results[wanted_nodes[node]] = (dy, False)
            if useful is not None and not useful[node]:
                continue
        if node.saved is FREED:
            raise _freed(node)
        node.check_versions()
        inputs, saved, needs = node.inputs, node.saved, node.needs
        if useful is not None:
            needs = tuple(
                [
                    n and (x in wanted_leaves or x._node in useful)
                    for n, x in zip(needs, inputs, strict=True)
                ]
            )
        # A part of a tensor adds to the sum of the whole: n parts cost as much as one gradient.
        add_backward = getattr(node.rule, "add_backward", None)
        if add_backward is not None and not create_graph and not STATE.detect_nan:
            total = arrived(inputs[0])
            if total is not None:
                add_backward(node.xp, total, dy, **node.statics)
                if not retain_graph:
                    node.saved, node.inputs = FREED, ()
                continue
        added = None  # the node whose gradient so far the kernel has added to its own
        if create_graph:
            gradients = _backward_on_tensors(node, dy, needs)
        else:
            added, so_far = _so_far(node, needs, pending)
            gradients = _backward_on_arrays(node, dy, needs, sink, so_far)
        if not retain_graph:
            node.saved, node.inputs = FREED, ()
        for position, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
            if gradient is None or not needs[position]:
                continue
            if isinstance(gradient, np.generic):  # NumPy turns 0-d results into scalars
                gradient = np.asarray(gradient)
            fresh = not create_graph and _is_fresh(node, position, gradients, dy, saved)
            if gradient.shape != x.shape:
                gradient, fresh = unbroadcast(gradient, x.shape), not create_graph
            if gradient.dtype != x.dtype:
                gradient, fresh = gradient.astype(x.dtype), not create_graph
            if STATE.detect_nan:
                array = gradient.array if create_graph else gradient
                check_finite(node.op, "backward", array, inputs, node.statics, node.modules)
            if added is not None and position == node.rule.ADDS_TO:
                pending[added] = gradient, True
            else:
                send(x, gradient, fresh)
    return results


def _nodes_between(outputs: list[Tensor], wanted: list[Tensor]) -> dict[Node, bool]:
    """Nodes through which a gradient flows to a wanted tensor.

    The value is False for a wanted tensor's own node if nothing below it is wanted as well.
    """
    reachable: dict[Node, None] = {}
    stack = [t._node for t in outputs if t._node is not None]
    while stack:
        node = stack.pop()
        if node not in reachable:
            reachable[node] = None
            if node.saved is FREED:
                raise _freed(node)
            stack.extend(x._node for x in node.inputs if x is not None and x._node is not None)
    wanted_leaves = {t for t in wanted if t._node is None}
    wanted_nodes = {t._node for t in wanted if t._node is not None}
    useful: dict[Node, bool] = {}
    for node in sorted(reachable, key=lambda n: n.order):
        through = any(
            x is not None and (x in wanted_leaves or x._node in useful) for x in node.inputs
        )
        if through or node in wanted_nodes:
            useful[node] = through
    return useful


def _so_far(
    node: Node, needs: tuple[bool, ...], pending: dict[Node, tuple[Any, bool]]
) -> tuple[Node | None, Any]:
    """The node of the input whose gradient this node's kernel adds to what there is already, and
    what there is; twice None if it has to be added here."""
    adds = node.xp is None and not node.low
    position = getattr(node.rule, "ADDS_TO", None) if adds else None
    x = None if position is None or not needs[position] else node.inputs[position]
    if x is None or x._node is None or x._node not in pending:
        return None, None
    so_far, _ = pending[x._node]
    fits = so_far.shape == x.shape and so_far.dtype == x.dtype
    return (x._node, so_far) if fits else (None, None)


def _backward_on_arrays(
    node: Node, dy: Any, needs: tuple[bool, ...], sink: GradientSink | None, so_far: Any
) -> tuple[Any, ...]:
    if node.low:
        dy = widened(dy)
    if node.xp is None:
        statics = node.statics if so_far is None else {**node.statics, "so_far": so_far}
        backward_into = getattr(node.rule, "backward_into", None)
        if sink is not None and sink.overwrite and backward_into is not None and not node.low:
            places = sink.places(node.inputs, needs)
            return tuple(backward_into(dy, node.saved, needs, places, **statics))
        return tuple(node.rule.backward(dy, node.saved, needs, **statics))
    return tuple(node.rule.backward(node.xp, dy, node.saved, needs, **node.statics))


def _backward_on_tensors(node: Node, dy: Tensor, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    """The textbook on tensors: forward again, so that what it saves is part of the graph."""
    if any(isinstance(x, Forgotten) for x in node.inputs):
        raise GraphFreedError(
            f"create_graph=True reached {node.op.name!r}, which was recorded under first_order() "
            "and has not kept its inputs. Run the forward pass outside of that block."
        )
    rule = node.op
    with setting(grad_enabled=True), functions.default_device(device_of(dy.array)):
        inputs: Any = node.inputs
        if node.low:
            dy, *inputs = (widened(x) for x in (dy, *inputs))
        _, saved = rule.forward(functions, *inputs, **node.statics)
        return tuple(rule.backward(functions, dy, saved, needs, **node.statics))


def _freed(node: Node) -> GraphFreedError:
    return GraphFreedError(
        f"backward reached {node.op.name!r}, whose saved arrays an earlier backward has freed. Run "
        "the forward pass again, or pass retain_graph=True to the earlier backward."
    )


def unbroadcast(gradient: Any, shape: tuple[int, ...]) -> Any:
    """Sum `gradient` over the axes along which an input of `shape` was broadcast."""
    xp = functions if isinstance(gradient, Tensor) else namespace_of(gradient)
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


def _added(so_far: tuple[Any, bool] | None, gradient: Any, owned: bool) -> tuple[Any, bool]:
    """Sum of two gradients and whether it is ours, in place if one of them is."""
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
    return total, not isinstance(total, Tensor)


def _accumulate_into(leaf: Tensor, array: Any, owned: bool) -> None:
    """Add a finished gradient to `leaf.grad`, which owns its memory."""
    if array.dtype != leaf.dtype:
        array, owned = array.astype(leaf.dtype), True
    if leaf.grad is None:
        leaf.grad = Tensor.wrap(array if owned else array.copy())
    else:
        require_gradient(leaf)
        leaf.grad.array += array
        leaf.grad.changed()


__all__ = [
    "add_gradients",
    "backward",
    "grad",
    "unbroadcast",
    "value_and_grad",
    "write_gradients",
]
