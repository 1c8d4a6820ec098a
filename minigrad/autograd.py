"""Reverse-mode differentiation over the graph that `minigrad.engine.apply` records.

Four ways to get gradients, which differ in where they are put. `minigrad.backward_pass` computes
them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from minigrad.backward_pass import run
from minigrad.device import namespace_of
from minigrad.graph import Variable, require_gradient
from minigrad.paths import Paths
from minigrad.places import Places
from minigrad.settings import Function
from minigrad.state import setting


def _where_it_lies(function: Function) -> Function:
    """Decorator: use the GPU that holds the first argument, a tensor or several."""

    @functools.wraps(function)
    def there(outputs: Any, *args: Any, **kwargs: Any) -> Any:
        if callable(outputs):
            raise TypeError(
                f"{function.__name__}: a Tensor is needed, not a function. minigrad.functional."
                "grad(f)(x) is the gradient of a function f at x."
            )
        if not isinstance(outputs, (Variable, Iterable)) and not hasattr(outputs, "__getitem__"):
            _require_tensors(function, [outputs])
        first = outputs if isinstance(outputs, Variable) else next(iter(outputs), None)
        _require_tensors(function, [] if first is None else [first])
        if first is None or first.device.is_in_use:
            return function(outputs, *args, **kwargs)
        with first.device.in_use():
            return function(outputs, *args, **kwargs)

    return cast(Function, there)


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
    run([output], [seed], places, retain_graph=retain_graph)
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
    """Gradients of the sum of `outputs` with respect to `inputs`; `.grad` does not change.

    Only the part of the graph between inputs and outputs is visited.

    Args:
        outputs: one tensor or several.
        inputs: one tensor or several, leaves or results of ops.
        grad_outputs: upstream gradients, one for each output; may be left out for single numbers.
        create_graph: make the gradients differentiable themselves, for higher derivatives. The
            textbook of each op then runs on tensors.
        retain_graph: keep what was saved; by default only with `create_graph`.
        allow_unused: give None for an input that the outputs do not depend on, instead of raising.

    Returns:
        One tensor if `inputs` is one tensor, otherwise a tuple in the order of `inputs`.

    Raises:
        TypeError: an output or an input is not a tensor.
        ValueError: an output or an input requires no gradient, or they do not depend on each other.
        GraphFreedError: an earlier backward has freed the graph.
    """
    output_list = [outputs] if isinstance(outputs, Variable) else list(outputs)
    input_list = [inputs] if isinstance(inputs, Variable) else list(inputs)
    _require_tensors(grad, [*output_list, *input_list])
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
    places, paths = Places(input_list), Paths(output_list, input_list)
    with setting(grad_enabled=create_graph):
        run(output_list, seeds, places, paths, retain_graph=retain, create_graph=create_graph)
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

    Each gradient is added as soon as it is computed and then dropped, so that there is no second
    copy of a model's gradients. `.grad` does not change, and the graph is freed.

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
    run([output], [_seed(output, None, scale=scale)], Places(tensors, arrays))


@_where_it_lies
def write_gradients(
    output: Variable, tensors: Sequence[Variable], arrays: Sequence[Any], *, scale: Any = 1.0
) -> None:
    """As `add_gradients`, but the arrays' old contents are overwritten, so they need not be zeros.

    Kernels with `backward_into` (see `minigrad.op`) write gradients directly into them.

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
    run([output], [_seed(output, None, scale=scale)], places)


def _require_tensors(function: Any, given: Sequence[Any]) -> None:
    for x in given:
        if not isinstance(x, Variable):
            raise TypeError(f"{function.__name__}: a Tensor is needed, not a {type(x).__name__}")


def _require_graph(output: Variable) -> None:
    if not output.requires_grad:
        raise ValueError(
            f"the tensor of shape {output.shape} does not require a gradient: no input of its ops "
            "had requires_grad=True, or it was made under no_grad(), or from .data, .numpy() or "
            ".detach(), or by what has no derivative, as argmax, round and comparisons."
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
    gradient = gradient.astype(output.dtype, copy=False)
    if gradient.shape != output.shape:
        raise ValueError(
            f"the upstream gradient has shape {gradient.shape}, the output {output.shape}."
        )
    return gradient if create_graph else gradient.array


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
    "write_gradients",
]
