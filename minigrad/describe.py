"""An op and its inputs in words, for messages, and the check for NaN that needs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigrad.device import device_of
from minigrad.errors import NonFiniteError
from minigrad.hints import about_broadcasting, shapes_that_do_not_fit


def describe(op: Any, inputs: tuple[Any, ...], statics: Mapping[str, Any]) -> str:
    """The op with its shapes, for messages: `matmul of shapes (2, 3) and (4, 5)`."""
    shapes = " and ".join(str(x.shape) for x in inputs if x is not None)
    simple = {k: v for k, v in statics.items() if isinstance(v, (int, float, str, tuple))}
    options = ", ".join(f"{key}={value!r}" for key, value in simple.items())
    return f"{op.name} of shapes {shapes}" + (f" ({options})" if options else "")


def why_not(op: Any, inputs: tuple[Any, ...], statics: Mapping[str, Any], error: Exception) -> str:
    """Why an op's inputs do not fit: the message of NumPy or the op, and the rule behind it."""
    hint = shapes_that_do_not_fit(op.name, inputs)
    said = hint or f": {str(error).rstrip()}{about_broadcasting(error)}"
    return describe(op, inputs, statics) + said


def module_path(modules: tuple[Any, ...]) -> str:
    """Dotted attribute path of the innermost running module, e.g. `decoder_layers.0.ffn`."""
    if not modules:
        return ""
    names = {id(module): path for path, module in modules[0].named_modules()}
    path = names.get(id(modules[-1]), type(modules[-1]).__name__)
    return path or type(modules[0]).__name__


def check_finite(
    op: Any,
    phase: str,
    array: Any,
    inputs: tuple[Any, ...],
    statics: Mapping[str, Any],
    modules: tuple[Any, ...],
) -> None:
    """Raise `NonFiniteError` if a float `array` holds a NaN or Inf."""
    if array.dtype.kind != "f":
        return
    xp = device_of(array).xp
    bad = ~xp.isfinite(array)
    count = int(bad.sum())
    if not count:
        return
    index = tuple(int(i[0]) for i in xp.nonzero(bad)) if array.ndim else ()
    path = module_path(modules)
    where = f" in module {path!r}" if path else ""
    raise NonFiniteError(
        f"{phase} of {describe(op, inputs, statics)}{where} gave {count} non-finite value(s) of "
        f"{array.size}, the first is {float(array[index])} at index {index}.",
        op=op.name,
        phase=phase,
        module=path,
    )


def listed(node: Any, gradients: Any) -> tuple[Any, ...]:
    """What a node's backward has returned, if it is a gradient or None for each input.

    Raises:
        TypeError: it is something else, as it may be for an op of your own.
    """
    known = isinstance(gradients, (tuple, list))
    if known and len(gradients) == len(node.needs):
        return tuple(gradients)
    found = f"{len(gradients)} of them" if known else "no tuple"
    raise TypeError(
        f"backward of the op {node.op.name!r} must return a tuple with a gradient, or None, for "
        f"each of its {len(node.needs)} inputs; it returned {found}"
    )
