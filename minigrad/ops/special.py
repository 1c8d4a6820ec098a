"""Array functions that NumPy does not have. On tensors they are the engine's own ops."""

from collections.abc import Callable, Sequence
from functools import wraps
from math import pi, sqrt
from typing import Any

import numpy as np

from minigrad.op import Array, Shape, Xp

# Coefficients of W. J. Cody, "Rational Chebyshev approximations for the error function",
# Mathematics of Computation 23 (1969), pp. 631-637, highest power first.
_SMALL_P = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_SMALL_Q = (
    1.0,
    2.36012909523441209e1,
    2.44024637934444173e2,
    1.28261652607737228e3,
    2.84423683343917062e3,
)
_MIDDLE_P = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e0,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
_MIDDLE_Q = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)


_TAIL_P = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
    1.60837851487422766e-2,
    6.58749161529837803e-4,
)
_TAIL_Q = (
    1.0,
    2.56852019228982242e0,
    1.87295284992346047e0,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
    2.33520497626869185e-3,
)

FAR = 40  # e^(-x²/2) is 0 from there on, in float64 too
SLICE = 16_384  # elements: a few temporaries of it stay in the cache


def on_tensors(xp: Xp) -> bool:
    """Whether `xp` is `minigrad.functions`, where the functions below are ops of their own."""
    return xp.__name__ == "minigrad.functions"


def by_strides(x: Array) -> list[int]:
    """The axes of an array in the order of memory, the outermost first."""
    return sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))


def in_slices(function: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """Run an element-wise `function(xp, x, *options)` on slices of large NumPy arrays.

    The dozens of passes of a polynomial then go through the cache instead of main memory. The
    function returns a tuple of arrays; they have x's order of memory.
    """

    @wraps(function)
    def sliced(xp: Xp, x: Array, *options: Any) -> tuple[Array, ...]:
        if xp is not np or x.size <= SLICE:
            return function(xp, x, *options)
        order = by_strides(x)
        rows = x.transpose(order)
        shape, back = rows.shape, np.argsort(order)
        if rows.flags.c_contiguous:
            rows = rows.reshape(-1)
        step = max(1, SLICE * len(rows) // rows.size)
        results: list[np.ndarray] = []
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            found = function(xp, rows[part], *options)
            if not results:
                results = [np.empty(rows.shape, x.dtype) for _ in found]
            for result, values in zip(results, found, strict=True):
                result[part] = values
        return tuple(result.reshape(shape).transpose(back) for result in results)

    return sliced


def _polynomial(x: Array, coefficients: Sequence[float]) -> Array:
    result = coefficients[0]
    for c in coefficients[1:]:
        result = result * x + c
    return result


def _choose(condition: Array, x: Array, y: Array) -> Array:
    """`where` for finite x and y. NumPy's own is several times slower on a random condition."""
    chosen = condition.astype(x.dtype)
    return chosen * x + (1 - chosen) * y


def _erf_near_zero(size: Array) -> Array:
    """erf of 0 <= size <= 0.5: a rational function of its square."""
    square = size * size
    return size * _polynomial(square, _SMALL_P) / _polynomial(square, _SMALL_Q)


def _erfcx(xp: Xp, size: Array) -> Array:
    """e^(s²)·(1 - erf s) for s from 0.46 to `FAR`: the tail divided by e^(-s²)."""
    middle = xp.minimum(size, 4)
    ratio = _polynomial(middle, _MIDDLE_P) / _polynomial(middle, _MIDDLE_Q)
    far = xp.maximum(size, 4)
    s = 1 / (far * far)
    tail = (1 / sqrt(pi) - s * _polynomial(s, _TAIL_P) / _polynomial(s, _TAIL_Q)) / far
    return _choose(size < 4, ratio, tail)


def erf(xp: Xp, x: Array) -> Array:
    """The error function, within a few roundings of its value.

    Small |x| by a rational function of x², larger ones by 1 - e^(-x²) times another; from 6 on the
    result is ±1 in float64.
    """
    return xp.erf(x) if on_tensors(xp) else _erf(xp, x)[0]


@in_slices
def _erf(xp: Xp, x: Array) -> tuple[Array, ...]:
    size = xp.minimum(xp.abs(x), 6)
    near = _erf_near_zero(xp.minimum(size, 0.5))
    far = 1 - _exp_of_square(xp, size, 1.0) * _erfcx(xp, size)
    return (xp.sign(x) * _choose(size < 0.5, near, far),)


def normal_cdf(xp: Xp, x: Array) -> Array:
    """Φ(x), the share of a standard normal distribution below x.

    (1 + erf(x/√2))/2 would lose the tail at negative x to cancellation. So Φ(-|x|) is computed as
    e^(-x²/2) times a rational function, and for positive x it is subtracted from 1.
    """
    return xp.normal_cdf(x) if on_tensors(xp) else _normal_cdf(xp, x)[0]


@in_slices
def _normal_cdf(xp: Xp, x: Array) -> tuple[Array, ...]:
    size = xp.minimum(xp.abs(x), FAR)
    z = size * sqrt(0.5)
    near = 0.5 - 0.5 * _erf_near_zero(xp.minimum(z, 0.5))
    below = _choose(z < 0.5, near, 0.5 * _exp_of_square(xp, size, 0.5) * _erfcx(xp, z))
    return (xp.abs((x > 0) - below),)


def gaussian(xp: Xp, x: Array, factor: float) -> Array:
    """e^(-factor·x²) for a factor of 1 or 0.5, within a few roundings.

    x² is about 100 where the result is tiny, so its rounding error would appear a hundredfold in
    the result. Therefore x = h + r, where h has so few bits that its square is exact (Veltkamp's
    splitting): x² = h² + (x - h)(x + h), and the second part is small. In a graph h is a constant.
    """
    return _exp_of_square(xp, x, factor) if on_tensors(xp) else _gaussian(xp, x, factor)[0]


def _exp_of_square(xp: Xp, x: Array, factor: float) -> Array:
    x = xp.clip(x, -FAR, FAR)
    head = xp.stop_gradient(x) if on_tensors(xp) else x
    stretched = head * float(2 ** ((np.finfo(x.dtype).nmant + 2) // 2) + 1)
    head = stretched - (stretched - head)
    return xp.exp(-factor * head * head) * xp.exp(-factor * (x - head) * (x + head))


@in_slices
def _gaussian(xp: Xp, x: Array, factor: float) -> tuple[Array, ...]:
    return (_exp_of_square(xp, x, factor),)


def logistic(xp: Xp, x: Array) -> Array:
    """1/(1 + e^-x)"""
    return xp.sigmoid(x) if on_tensors(xp) else _logistic_pair(xp, x)[0]


def logistic_pair(xp: Xp, x: Array) -> tuple[Array, ...]:
    """σ(x) = 1/(1 + e^-x) and σ(-x), from e^-|x|, which overflows for no x.

    σ(-x) is 1 - σ(x), but where σ(x) is close to 1 the difference keeps no digits.
    """
    return (xp.sigmoid(x), xp.sigmoid(-x)) if on_tensors(xp) else _logistic_pair(xp, x)


@in_slices
def _logistic_pair(xp: Xp, x: Array) -> tuple[Array, ...]:
    e = xp.exp(-xp.abs(x))
    share = 1 / (1 + e)
    positive = (x >= 0).astype(x.dtype)
    # the maxima are e^min(x, 0) and e^min(-x, 0)
    return xp.maximum(e, positive) * share, xp.maximum(e, 1 - positive) * share


def sech_squared(xp: Xp, x: Array) -> Array:
    """1/cosh² x = 1 - tanh² x, without the difference."""
    if on_tensors(xp):
        doubled = 2 * xp.clip(x, -400, 400)  # further out it is 0, in float64 too
        return 4 * xp.sigmoid(doubled) * xp.sigmoid(-doubled)
    return _sech_squared(xp, x)[0]


@in_slices
def _sech_squared(xp: Xp, x: Array) -> tuple[Array, ...]:
    e = xp.exp(-2 * xp.minimum(xp.abs(x), 400))
    return (4 * e / ((1 + e) * (1 + e)),)


def softplus(xp: Xp, x: Array) -> Array:
    """ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)"""
    return xp.softplus(x) if on_tensors(xp) else _softplus(xp, x)[0]


@in_slices
def _softplus(xp: Xp, x: Array) -> tuple[Array, ...]:
    return (xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x))),)


def scatter_add(xp: Xp, y: Array, index: Any, shape: Shape) -> Array:
    """An array of zeros of `shape` with y added at `index`, repeated indices adding up.

    The adjoint of `x[index]`. Basic indices (slices and integers) never repeat, so assignment does.
    Others may repeat millions of times, so floats are added in float64.
    """
    if on_tensors(xp):
        return xp.scatter_add(y, index, shape)
    if _is_basic(index):
        out = xp.zeros(shape, dtype=y.dtype)
        out[index] = y
        return out
    dtype = np.float64 if y.dtype.kind == "f" else y.dtype
    out = xp.zeros(shape, dtype=dtype)
    xp.add.at(out, index, y.astype(dtype))
    return out.astype(y.dtype)


def add_at(xp: Xp, total: Array, index: Any, y: Array) -> None:
    """total[index] += y in place, repeated indices adding up."""
    if _is_basic(index):
        total[index] += y
    else:
        total += scatter_add(xp, y, index, total.shape)


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
        for part in parts
    )
