"""NumPy's functions on tensors (its enhancement proposals 13 and 18).

    a tensor in a graph        a function that minigrad offers runs on tensors and keeps the graph;
                               any other raises TypeError instead of cutting it silently
    tensors outside of graphs  a function that minigrad offers gives a tensor; any other runs on
    (and under `no_grad()`)    their arrays and gives what NumPy gives

What minigrad offers is what `minigrad.functions` has under NumPy's name, with those of NumPy's
options that it has as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from minigrad import functions as F
from minigrad.state import STATE
from minigrad.tensor import Tensor

# Their answers are no arrays of values, so no gradient could flow through them.
_QUESTIONS = frozenset(
    {
        *("shape", "ndim", "size", "array_equal", "array_equiv", "allclose", "result_type"),
        *("can_cast", "min_scalar_type", "common_type", "iscomplexobj", "isrealobj"),
        *("shares_memory", "may_share_memory", "array_repr", "array_str", "array2string"),
    }
)
# NumPy's parameters in order where Python does not know them, or ours have other names.
_PARAMETERS: dict[str, dict[str, str | None]] = {
    "where": {"condition": "condition", "x": "x", "y": "y"},
    "concatenate": {"arrays": "tensors", "axis": "axis", "out": None},
    "clip": {"a": "x", "a_min": "min", "a_max": "max", "out": None, "min": "min", "max": "max"},
    "dot": {"a": "x", "b": "y", "out": None},  # before 2.2 NumPy's has no signature
    "pad": {
        "array": "x",
        "pad_width": "pad_width",
        "mode": None,
        "constant_values": "constant_values",
    },
}
# Values of options that change nothing, beside NumPy's own defaults.
_PLAIN = {"mode": "constant", "casting": "same_kind", "order": "C", "where": True}


def ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """What `Tensor.__array_ufunc__` does: NumPy's element-wise functions, and `array + tensor`."""
    ours = _offered_ufuncs().get(ufunc)
    if method == "__call__" and ours is not None and not options:
        return ours(*inputs)
    name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
    out = options.get("out", ())
    if _in_graph((inputs, dict(options))):
        if out:
            raise TypeError(
                f"numpy.{name} cannot write a result that belongs to a graph to an array: write "
                "y = y + x instead of y += x. Where no gradient is needed, use .numpy() for the "
                "array or .detach() for a tensor outside of the graph."
            )
        options_text = f" with {', '.join(options)}" if ours is not None and options else ""
        raise _cut(name + options_text)
    result = getattr(ufunc, method)(*_arrays(inputs), **_arrays(dict(options)))
    for tensor in _tensors((inputs[:1] if method == "at" else (), out)):
        tensor.changed()
    if len(out) == 1:
        return out[0]
    return out or result


def cupy_kernel(name: str, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """As `ufunc` for CuPy's element-wise functions, and so for `cupy_array + tensor`."""
    known = getattr(np, name.removeprefix("cupy_"), None)
    ours = _offered_ufuncs().get(known)
    if ours is None or options or not isinstance(known, np.ufunc) or len(args) > known.nin:
        raise _cut(name.replace("cupy_", "cupy."), library="")
    return ours(*args)


def function(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `Tensor.__array_function__` does: NumPy's other functions."""
    name = function.__name__
    given = _translated(function, args, kwargs)
    if given is not None:
        return _offered_functions()[function](*given[0], **given[1])
    if _in_graph((args, kwargs)) and name not in _QUESTIONS:
        module = function.__module__.removeprefix("numpy.").removeprefix("numpy")
        ours = function in _offered_functions()
        raise _cut(f"{module}.{name}".strip(".") + (" with these options" if ours else ""))
    return function(*_arrays(args), **_arrays(kwargs))


def _translated(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments for minigrad's function of this name, None if it does not take them."""
    ours = _offered_functions().get(function)
    if ours is None:
        return None
    name = ours.__name__
    if name == "einsum":
        return (args, {}) if not kwargs and isinstance(args[0], str) else None
    if name in ("broadcast_arrays", "meshgrid"):  # any number of tensors
        return (args, kwargs) if kwargs.keys() <= {"indexing"} else None
    names, defaults = _parameters(function, ours)
    order = list(names)
    if len(args) > len(order):
        return None
    result: dict[str, Any] = {}
    for key, value in [*zip(order, args, strict=False), *kwargs.items()]:
        if value is defaults.get(key, np._NoValue) or (value is None and names.get(key) is None):
            continue  # as if it was not given
        called = names.get(key)
        if called is not None and called not in result:
            result[called] = value
        elif called is not None or not (key in _PLAIN and value is _PLAIN[key]):
            return None
    return (), result


@cache
def _parameters(
    function: Callable[..., Any], ours: Callable[..., Any]
) -> tuple[dict[str, str | None], dict[str, Any]]:
    """NumPy's parameters and what ours are called, and NumPy's defaults."""
    if ours.__name__ in _PARAMETERS:
        return _PARAMETERS[ours.__name__], {}
    theirs = inspect.signature(function).parameters
    parameters = inspect.signature(ours).parameters.values()
    own = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    by_name = [p.name for p in parameters]
    names: dict[str, str | None] = {}
    for position, (key, parameter) in enumerate(theirs.items()):
        names[key] = key if key in by_name else None
        by_position = parameter.kind is not parameter.KEYWORD_ONLY and position < len(own)
        if names[key] is None and by_position and own[position] not in theirs:
            names[key] = own[position]
    return names, {k: p.default for k, p in theirs.items() if p.default is not p.empty}


@cache
def _offered_ufuncs() -> dict[Any, Callable[..., Tensor]]:
    found = {
        getattr(np, name): getattr(F, name)
        for name in vars(F)["__all__"]
        if isinstance(getattr(np, name, None), np.ufunc)
    }
    return found


@cache
def _offered_functions() -> dict[Any, Callable[..., Any]]:
    """NumPy's functions that ask tensors what to do, and ours."""
    found = {
        getattr(theirs, name): getattr(ours, name)
        for theirs, ours in ((np, F), (np.linalg, F.linalg))
        for name in vars(ours)["__all__"]
        if hasattr(getattr(theirs, name, None), "_implementation") and name not in _QUESTIONS
    }
    found[np.amax], found[np.amin] = F.max, F.min
    return found


def _tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _in_graph(values: Any) -> bool:
    return STATE.grad_enabled and any(tensor.requires_grad for tensor in _tensors(values))


def _arrays(values: Any) -> Any:
    """The same with arrays for tensors."""
    if isinstance(values, Tensor):
        return values.numpy()
    if type(values) in (list, tuple):
        return type(values)(_arrays(value) for value in values)
    if type(values) is dict:
        return {key: _arrays(value) for key, value in values.items()}
    return values


def _cut(name: str, library: str = "numpy.") -> TypeError:
    return TypeError(
        f"{library}{name} would cut the graph of a tensor, as minigrad has no function like it. "
        "Write it with minigrad's functions. Where no gradient is needed, use .numpy() for the "
        "array or .detach() for a tensor outside of the graph."
    )
