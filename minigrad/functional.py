"""Derivatives as functions of functions: gradients, Jacobians, Hessians and products with them.

Each takes a function of tensors and differentiates it with respect to the arguments `argnums`: the
first one by default, or a tuple of numbers. Arguments may be tensors, arrays or numbers. They do
not change, nor does any `.grad`. All of them can be nested: `grad(grad(f))` is the second
derivative.

    >>> import minigrad as mg
    >>> from minigrad import functional
    >>> functional.grad(lambda x: (x**3).sum())(mg.Tensor([1.0, 2.0]))
    Tensor([ 3., 12.], dtype=float32)

A result is part of a graph, and can be differentiated again, if an argument is: one with
`requires_grad`, or one with respect to which an outer derivative differentiates. If only something
else requires a gradient, such as the parameters of a model that the function calls, use
`create_graph=True`.

The methods: reverse mode for gradients and Jacobians; `jvp` and `hvp` differentiate a product with
an unknown vector, which is linear in that vector (Pearlmutter, "Fast Exact Multiplication by the
Hessian", Neural Computation 6, 1994; Townsend, "A new trick for calculating Jacobian vector
products", 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from minigrad import functions
from minigrad.autograd import grad as gradients_of
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_float
from minigrad.state import enable_grad
from minigrad.tensor import Tensor

ArgNums = int | tuple[int, ...]


def grad(
    function: Callable[..., Tensor], argnums: ArgNums = 0, *, create_graph: bool | None = None
) -> Callable[..., Any]:
    """The function that computes the gradient of `function`, whose value is a single number.

    Args:
        function: maps tensors to a tensor with one element.
        argnums: the arguments to differentiate by.
        create_graph: whether the gradient can be differentiated again; see the module's docstring.

    Returns:
        A function of the same arguments that gives a tensor of the argument's shape, or a tuple of
        them if `argnums` is one. Zeros for an argument that the value does not depend on.

    Raises:
        TypeError: the function does not give a tensor, or there is no such argument.
        ShapeError: the function's value has more than one element.
    """
    both = value_and_grad(function, argnums, create_graph=create_graph)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return gradient


def value_and_grad(
    function: Callable[..., Tensor],
    argnums: ArgNums | Iterable[Tensor] = 0,
    *,
    wrt: Iterable[Tensor] | None = None,
    create_graph: bool | None = None,
) -> Callable[..., tuple[Tensor, Any]]:
    """As `grad`, but returns `(value, gradient)`; also for tensors that are not arguments.

    Nothing is written to them, so several threads can differentiate the same model at once.

    Args:
        function: maps tensors to a tensor with one element.
        argnums: which arguments to differentiate by, as in `grad`; or what `wrt` is.
        wrt: tensors to differentiate by instead, for example `model.parameters()`. The gradient is
            then a tuple, with None for a tensor that the value does not depend on. It is part of a
            graph only with `create_graph`.
        create_graph: as in `grad`.
    """
    _require_function("grad", function)
    asked = argnums if wrt is None else wrt
    by: Any = asked if isinstance(asked, int) else tuple(asked)

    def differentiated(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        if isinstance(by, int) or not any(isinstance(x, Tensor) for x in by):
            variables, value, higher = _called("grad", function, by, args, kwargs, create_graph)
            _require_number("grad", value)
            gradient = _as_asked(_pulled_back(value, variables, None, higher), by)
        else:
            value, higher = _value("grad", function, args, kwargs), bool(create_graph)
            _require_number("grad", value)
            gradient = gradients_of(value, by, create_graph=higher, allow_unused=True)
        return value if higher else value.detach(), gradient

    return differentiated


def vjp(
    function: Callable[..., Tensor], *primals: Any, create_graph: bool | None = None
) -> tuple[Tensor, Callable[[Any], tuple[Tensor, ...]]]:
    """The value at `primals`, and the function that multiplies a vector by the Jacobian: vᵀ J.

    Args:
        function: maps tensors to a tensor.
        primals: its arguments; it is differentiated by all of them.

    Returns:
        `(value, pullback)`. `pullback(v)` with v of the value's shape gives one tensor for each
        primal, of its shape. It can be called several times.

    Raises:
        ShapeError: v does not have the shape of the value.
    """
    _require_function("vjp", function)
    everything = tuple(range(len(primals)))
    variables, value, higher = _called("vjp", function, everything, primals, {}, create_graph)

    def pullback(v: Any) -> tuple[Tensor, ...]:
        v = as_float(v).astype(value.dtype, copy=False)
        if v.shape != value.shape:
            raise ShapeError(f"functional.vjp: v has shape {v.shape}, the value {value.shape}")
        again = higher or v.requires_grad
        return tuple(_pulled_back(value, variables, v, again, retain=True))

    return value if higher else value.detach(), pullback


def jvp(
    function: Callable[..., Tensor], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[Tensor, Tensor]:
    """The value at `primals` and its directional derivative J t: the Jacobian times `tangents`.

    Args:
        function: maps tensors to a tensor.
        primals: its arguments.
        tangents: one direction for each primal, of its shape.

    Returns:
        `(value, derivative)`, both of the value's shape.

    Raises:
        ShapeError: the tangents do not have the shapes of the primals.
    """
    directions = _tangents("jvp", primals, tangents)
    higher = _in_graph([*primals, *tangents])
    with enable_grad():
        value, pullback = vjp(function, *primals, create_graph=True)
        # vᵀ J is linear in v, so its derivative by v in the direction of the tangents is J t.
        v = Tensor(functions.zeros_like(value.detach()), requires_grad=True)
        derivative = _derivative_along(pullback(v), directions, v, higher)
    return (value if higher else value.detach()), derivative


def jacobian(
    function: Callable[..., Tensor], argnums: ArgNums = 0, *, create_graph: bool | None = None
) -> Callable[..., Any]:
    """The function that gives all derivatives of all elements of `function`'s value.

    One backward pass for each element of the value.

    Returns:
        A function of the same arguments that gives a tensor of shape `value.shape + x.shape`, or a
        tuple of them if `argnums` is one.
    """
    _require_function("jacobian", function)

    def differentiated(*args: Any, **kwargs: Any) -> Any:
        name = "jacobian"
        variables, value, higher = _called(name, function, argnums, args, kwargs, create_graph)
        rows: list[list[Tensor]] = [[] for _ in variables]
        unit = functions.zeros_like(value.detach()).array.reshape(-1)
        for i in range(value.size):
            unit[i] = 1
            seed = Tensor.wrap(unit.reshape(value.shape).copy())
            unit[i] = 0
            for row, found in zip(
                rows, _pulled_back(value, variables, seed, higher, retain=True), strict=True
            ):
                row.append(found)
        results = [
            functions.reshape(functions.stack(row), (*value.shape, *x.shape))
            if row
            else functions.zeros((*value.shape, *x.shape), dtype=x.dtype)
            for row, x in zip(rows, variables, strict=True)
        ]
        return _as_asked(results, argnums)

    return differentiated


def hessian(function: Callable[..., Tensor], argnums: int = 0) -> Callable[..., Tensor]:
    """The function that gives the second derivatives of `function`, whose value is one number.

    Returns:
        A function of the same arguments that gives a tensor of shape `x.shape + x.shape`.
    """
    if not isinstance(argnums, int):
        raise TypeError("functional.hessian differentiates by one argument: argnums is an int")
    return jacobian(grad(function, argnums, create_graph=True), argnums)


def hvp(
    function: Callable[..., Tensor], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The value at `primals` and the Hessian times `tangents`, without the Hessian.

    It costs a few gradients, however many elements there are.

    Args:
        function: maps tensors to a tensor with one element.
        primals: its arguments.
        tangents: one direction for each primal, of its shape.

    Returns:
        `(value, products)`: one product for each primal, of its shape.

    Raises:
        ShapeError: a tangent does not have its primal's shape, or the value is not one number.
    """
    directions = _tangents("hvp", primals, tangents)
    everything = tuple(range(len(primals)))
    with enable_grad():
        variables, value, higher = _called("hvp", function, everything, primals, {}, None)
        _require_number("hvp", value)
        higher = higher or _in_graph(tangents)
        slope = _along(_pulled_back(value, variables, None, True), directions)
        products = _pulled_back(slope, variables, None, higher)
    return (value if higher else value.detach()), tuple(products)


def _called(
    name: str,
    function: Callable[..., Tensor],
    argnums: ArgNums,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    create_graph: bool | None,
) -> tuple[list[Tensor], Tensor, bool]:
    """The variables, the value there, and whether derivatives are to be differentiated again."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    given = list(args)
    for number in numbers:
        if not -len(given) <= number < len(given):
            raise TypeError(
                f"functional.{name}: argument {number} is to be differentiated by, but the "
                f"function was called with {len(given)} positional arguments"
            )
    higher = _in_graph([given[n] for n in numbers]) if create_graph is None else create_graph
    with enable_grad():
        for number in numbers:
            given[number] = _variable(given[number])
        value = _value(name, function, given, kwargs)
    return [given[n] for n in numbers], value, higher


def _value(
    name: str, function: Callable[..., Tensor], args: Sequence[Any], kwargs: dict[str, Any]
) -> Tensor:
    value = function(*args, **kwargs)
    if not isinstance(value, Tensor):
        raise TypeError(
            f"functional.{name}: the function gave a {type(value).__name__}, not a Tensor"
        )
    return value


def _require_function(name: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(
            f"functional.{name} takes a function and gives one, as in functional.{name}(f)(x); it "
            f"was given a {type(function).__name__}. minigrad.grad(y, x) differentiates tensors."
        )


def _require_number(name: str, value: Tensor) -> None:
    if value.size != 1:
        raise ShapeError(
            f"functional.{name}: the function's value has shape {value.shape}. Reduce it to one "
            "number, for example with .sum(), or use functional.jacobian."
        )


def _variable(x: Any) -> Tensor:
    """A tensor of its own to differentiate by, in the graph of x if x is in one."""
    x = as_float(x)
    if x.requires_grad:
        return functions.reshape(x, x.shape)
    leaf = x.detach()
    leaf.requires_grad = True
    return leaf


def _in_graph(values: Sequence[Any]) -> bool:
    return any(isinstance(x, Tensor) and x.requires_grad for x in values)


def _pulled_back(
    value: Tensor, variables: Sequence[Tensor], v: Tensor | None, higher: bool, retain: bool = False
) -> list[Tensor]:
    """vᵀ J, one tensor for each variable; zeros where the value does not depend on it."""
    if value.requires_grad:
        found = gradients_of(
            value,
            list(variables),
            v,
            create_graph=higher,
            retain_graph=retain or higher,
            allow_unused=True,
        )
    else:
        found = [None] * len(variables)
    pairs = zip(found, variables, strict=True)
    return [functions.zeros_like(x.detach()) if g is None else g for g, x in pairs]


def _tangents(name: str, primals: Sequence[Any], tangents: Sequence[Any]) -> list[Tensor]:
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise TypeError(f"functional.{name}: primals and tangents are tuples, also of one element")
    points, directions = [as_float(x) for x in primals], [as_float(t) for t in tangents]
    shapes, own = [x.shape for x in points], [t.shape for t in directions]
    if shapes != own:
        raise ShapeError(f"functional.{name}: primals of shapes {shapes}, tangents of {own}")
    return [t.astype(x.dtype, copy=False) for t, x in zip(directions, points, strict=True)]


def _along(gradients: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
    """Σ gradient·direction, over all elements of all."""
    total = functions.sum(gradients[0] * directions[0])
    for g, t in zip(gradients[1:], directions[1:], strict=True):
        total = total + functions.sum(g * t)
    return total


def _derivative_along(
    gradients: Sequence[Tensor], directions: Sequence[Tensor], v: Tensor, higher: bool
) -> Tensor:
    """The derivative by v of Σ gradient·direction."""
    return _pulled_back(_along(gradients, directions), [v], None, higher)[0]


def _as_asked(found: list[Tensor], argnums: ArgNums) -> Any:
    return found[0] if isinstance(argnums, int) else tuple(found)


__all__ = ["grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"]
