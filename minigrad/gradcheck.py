"""Checking gradients: analytic ones against central differences, in float64.

For a function f of tensors and a random upstream gradient u, the number  g(x) = Σ u·f(x)  has the
derivative  (g(x + h) - g(x - h)) / 2h + O(h²)  for each element. A constant upstream gradient would
hide errors (the gradient of a normalisation's sum is 0), so u is always random.

Small inputs are checked element by element. For large ones, derivatives along random directions d
are compared with the analytic d·∇g, which shows an error in any element. If they differ, halving d
again and again finds the element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.autograd import grad
from minigrad.tensor import Tensor


class GradientError(AssertionError):
    """An analytic gradient that differs from the central differences."""


def gradcheck(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    *,
    step: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    full_limit: int = 400,
    directions: int = 8,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> float:
    """Check the gradients of `function` at `inputs`.

    Args:
        function: maps the tensors to a tensor or a sequence of tensors, of which those of floats
            are checked. It must be deterministic.
        inputs: tensors; those with `requires_grad` are checked and must be float64.
        step: h of the central differences.
        rtol, atol: |analytic - numeric| <= atol + rtol·s, where s is the largest element of the
            input's gradient, because tiny elements beside it have its rounding errors.
        full_limit: inputs of up to this many elements are checked element by element.
        directions: how many random directions are checked for larger inputs.
        names: names of the inputs for messages.
        seed: of the upstream gradient and the directions.

    Returns:
        The largest error seen, as a share of what was allowed (at most 1).

    Raises:
        GradientError: a gradient is wrong; names the worst input, its worst element and both
            values.
        TypeError: a checked input is not float64.
        ValueError: no input requires a gradient.
    """
    if isinstance(inputs, Tensor):
        raise TypeError("gradcheck: the inputs come in a list: gradcheck(f, [x])")
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            raise TypeError(
                f"gradcheck: input {i} is no tensor but a {type(x).__name__}: "
                "minigrad.Tensor(values, dtype='float64', requires_grad=True)"
            )
    rng = np.random.default_rng(seed)
    labels = [f"input {i}" for i in range(len(inputs))] if names is None else list(names)
    checked = [i for i, x in enumerate(inputs) if x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input has requires_grad=True, so there is nothing to check")
    for i in checked:
        if inputs[i].dtype != np.float64:
            raise TypeError(
                f"gradcheck: {labels[i]} is {inputs[i].dtype}; central differences need float64: "
                "make it with dtype='float64', or .astype('float64')"
            )
    outputs = _outputs(function, inputs)
    upstream = [rng.standard_normal(y.shape) for y in outputs]
    with_graph = [(y, u) for y, u in zip(outputs, upstream, strict=True) if y.requires_grad]
    if not with_graph:
        raise GradientError("gradcheck: no output depends on an input that requires a gradient")
    analytic = grad(
        [y for y, _ in with_graph],
        [inputs[i] for i in checked],
        [Tensor(np.asarray(u)) for _, u in with_graph],
        allow_unused=True,
    )

    def value() -> float:
        ys = _outputs(function, inputs)  # not under no_grad: the function may differentiate itself
        return float(sum((y.numpy() * u).sum() for y, u in zip(ys, upstream, strict=True)))

    worst, message = 0.0, ""
    for i, gradient in zip(checked, analytic, strict=True):
        x = inputs[i]
        exact = np.zeros(x.shape) if gradient is None else gradient.numpy()
        if x.size <= full_limit:
            share, found = _check_elements(value, x, exact, step, rtol, atol)
        else:
            share, found = _check_directions(value, x, exact, step, rtol, atol, directions, rng)
        if share > worst:
            worst, message = share, f"gradcheck: {labels[i]} of shape {x.shape}: {found}"
    if worst > 1:
        raise GradientError(message)
    return worst


def gradcheck_module(
    module: Any,
    inputs: Sequence[Tensor],
    loss: Callable[[Any], Tensor] | None = None,
    **options: Any,
) -> float:
    """Check the gradients of a module's parameters, and of those inputs that require one.

    Args:
        module: an `nn.Module` in float64 (`module.astype("float64")`), deterministic.
        inputs: what the module is called with.
        loss: maps the module's output to a tensor; left out, the output itself is used.
        options: as for `gradcheck`.

    Raises:
        GradientError: names the worst parameter.
    """
    named = list(module.named_parameters())

    def function(*_: Tensor) -> Any:
        output = module(*inputs)
        return output if loss is None else loss(output)

    names = [f"input {i}" for i in range(len(inputs))] + [name for name, _ in named]
    tensors = [*inputs, *(parameter for _, parameter in named)]
    return gradcheck(function, tensors, names=names, **options)


def _outputs(function: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs that can have a gradient: integers and booleans do not."""
    result = function(*inputs)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    return [y for y in outputs if y.dtype.kind == "f"]


def _check_elements(
    value: Callable[[], float],
    x: Tensor,
    exact: np.ndarray,
    step: float,
    rtol: float,
    atol: float,
) -> tuple[float, str]:
    """The worst error as a share of what is allowed, and a description of it."""
    numeric = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        numeric[index] = _element_derivative(value, x, index, step)
    if not x.size:
        return 0.0, ""
    share = np.abs(exact - numeric) / (
        atol + rtol * max(np.abs(exact).max(), np.abs(numeric).max())
    )
    share = np.where(np.isfinite(share), share, np.inf)
    at = np.unravel_index(int(share.argmax()), share.shape)
    wrong = f" ({int((share > 1).sum())} of {share.size} elements are off)"
    return float(share[at]), _element(at, exact[at], numeric[at]) + wrong


def _check_directions(
    value: Callable[[], float],
    x: Tensor,
    exact: np.ndarray,
    step: float,
    rtol: float,
    atol: float,
    directions: int,
    rng: np.random.Generator,
) -> tuple[float, str]:
    """As `_check_elements`, along random directions."""

    def error(direction: np.ndarray) -> tuple[float, float]:
        """|analytic - numeric| derivative along `direction`, and the larger of the two."""
        before = x.array.copy()
        try:
            x.array[...] = before + step * direction
            above = value()
            x.array[...] = before - step * direction
            below = value()
        finally:
            x.array[...] = before
        numeric, analytic = (above - below) / (2 * step), float((direction * exact).sum())
        return abs(analytic - numeric), max(abs(analytic), abs(numeric))

    worst, worst_direction = 0.0, np.zeros(x.shape)
    for _ in range(directions):
        direction = rng.standard_normal(x.shape)
        difference, size = error(direction)
        share = difference / (atol + rtol * max(size, float(np.linalg.norm(exact))))
        share = share if np.isfinite(share) else np.inf
        if share > worst:
            worst, worst_direction = share, direction
    if worst <= 1:
        return worst, ""
    low, high = 0, x.size  # among these elements, in C's order, is the one that is off most
    while high - low > 1:
        middle = (low + high) // 2
        number = np.arange(x.size).reshape(x.shape)
        left, right = (
            error(np.where((a <= number) & (number < b), worst_direction, 0))[0]
            for a, b in ((low, middle), (middle, high))
        )
        low, high = (middle, high) if right > left else (low, middle)
    at = np.unravel_index(low, x.shape)
    return worst, _element(at, exact[at], _element_derivative(value, x, at, step))


def _element_derivative(
    value: Callable[[], float], x: Tensor, index: tuple[Any, ...], step: float
) -> float:
    before = x.array[index]
    try:
        x.array[index] = before + step
        above = value()
        x.array[index] = before - step
        below = value()
    finally:
        x.array[index] = before
    return (above - below) / (2 * step)


def _element(index: tuple[Any, ...], analytic: float, numeric: float) -> str:
    place = tuple(int(n) for n in index)
    return f"the worst element is {place}: analytic {analytic:.10g}, numeric {numeric:.10g}"
