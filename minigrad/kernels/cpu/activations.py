"""Sigmoid, SiLU, SwiGLU, GELU and tanh. Twins of the classes of these names in `minigrad.ops`.

Shapes: any. Dtypes: float32 and float64.

The textbook's formulas take dozens of passes over memory. Here they run in place on slices that
stay in the cache. Forward computes the derivative y' as well and saves it, so backward is
dx = dy·y'. Only tanh is so quick that it saves x instead.

With E = e^-x the logistic function is σ(x) = 1/(1 + E), and σ(-x) = E·σ(x) keeps its digits where
1 - σ(x) would not. E overflows far below 0. Such x are rare; they are found and computed as
σ(x) = e^x.

For |x| = s the normal distribution is Φ(-s) = e^(-s²/2)·w·P(w) with w = 1/(s + 4) and a polynomial
P, and Φ(s) = 1 - Φ(-s): one formula for small and large s alike (an idea of Shepherd and
Laframboise, "Chebyshev approximation of (1 + 2x) exp(x²) erfc x", Mathematics of Computation 36,
1981, pp. 249-253). The coefficients of P were computed with mpmath, by interpolation at Chebyshev's
points.

s² is rounded, and the error would appear a hundredfold in e^(-s²/2). So s = h + d, where h has half
the bits and an exact square: s² = h² + d(s + h). What rounding this sum loses is corrected after
the exponential. (NumPy's `exp2`, see `exponential.py`, needs a factor in the exponent, whose
rounding would matter in the same way.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt
from typing import Any, Final, NamedTuple

import numpy as np

from minigrad.kernels.cpu.scratch import scratch
from minigrad.kernels.cpu.threads import shared
from minigrad.op import Array, Gradients, Needs, Op, Result, Saved
from minigrad.ops import activations
from minigrad.ops.activations import CUBIC, SLOPE
from minigrad.ops.special import FAR, by_strides

SLICE = 131_072  # bytes: half a dozen arrays of it stay in the cache


class _Limits(NamedTuple):
    """What depends on the dtype.

    Attributes:
        logistic: e^-x overflows for no x above minus this.
        tanh_form: x² up to which |2u| of the tanh form of GELU is below `logistic`.
        normal: e^(-s²/2) is 0 from this s on.
        bits: integers of the same size, and the mask that keeps the upper half of the digits.
        shift, stretch: P is a polynomial in u = shift + stretch·w, which goes from -1 to about 1.
        coefficients: of P, highest power first.
    """

    logistic: float
    tanh_form: float
    normal: float
    bits: tuple[type, int]
    shift: float
    stretch: float
    coefficients: tuple[float, ...]


_LIMITS = {
    "f": _Limits(
        logistic=87,
        tanh_form=96,
        normal=14.5,
        bits=(np.int32, -(1 << 12)),
        shift=1.5625,
        stretch=-10.25,
        coefficients=(
            -1.305326077e-5,
            6.034727267e-5,
            1.785385248e-4,
            -1.257581636e-3,
            -4.19660937e-4,
            2.43352633e-2,
            -1.152111143e-1,
            3.216923177e-1,
            -6.302075386e-1,
            9.094968438e-1,
        ),
    ),
    "d": _Limits(
        logistic=708,
        tanh_form=440,
        normal=38.7,
        bits=(np.int64, -(1 << 27)),
        shift=1.203125,
        stretch=-8.8125,
        coefficients=(
            -1.16514086389455926e-10,
            2.65591641312294477e-10,
            1.7258444711441608e-9,
            -1.55621776013389156e-9,
            -1.404737658089114e-8,
            -3.59112003683953388e-9,
            8.50953678645160111e-8,
            1.18119490971359875e-7,
            -4.39390549455241892e-7,
            -1.23401296135818906e-6,
            2.1934378515930621e-6,
            1.05930628101640833e-5,
            -1.36409318996443658e-5,
            -8.93211961794455843e-5,
            1.47552505532432282e-4,
            7.43202227831396161e-4,
            -2.51041430240743432e-3,
            -3.28738487905698047e-3,
            4.3047690417527424e-2,
            -1.56640434103440657e-1,
            3.64141702727803625e-1,
            -6.2114698970111393e-1,
            8.1477382751445378e-1,
        ),
    ),
}


def _by_slices(
    function: Callable[..., None], inputs: tuple[np.ndarray, ...], results: int, **statics: Any
) -> Any:
    """New arrays like the first input, which `function(*inputs, *results)` fills by slices.

    The function gets arrays of at most `SLICE` bytes with an axis or more, and does not write into
    its inputs. The results have the first input's order of memory.
    """
    first = inputs[0]
    if first.nbytes <= SLICE and first.ndim and first.dtype.isnative:
        found = [np.empty_like(first) for _ in range(results)]
        if first.size:
            function(*inputs, *found, **statics)
        return found
    order = by_strides(first)
    shape = first.transpose(order).shape
    dtype = first.dtype.newbyteorder("=")
    found = [np.empty(shape, dtype) for _ in range(results)]
    vectors = [np.ascontiguousarray(x.transpose(order), dtype).reshape(-1) for x in inputs]
    vectors += [array.reshape(-1) for array in found]
    step = SLICE // dtype.itemsize
    starts = range(0, first.size, step)

    def compute(some: slice) -> None:
        for start in starts[some]:
            part = slice(start, start + step)
            function(*[vector[part] for vector in vectors], **statics)

    shared(len(starts), first.size, compute)
    back = np.argsort(order)
    return [array.transpose(back) for array in found]


def _work(number: int, x: np.ndarray) -> np.ndarray:
    """`number` arrays like x, valid until the next call."""
    return scratch("activations", (number, *x.shape), x.dtype)


@dataclass(frozen=True)
class _SavesSlope:
    """The pair of an element-wise op that saves its derivative y'.

    Attributes:
        textbook: the op, which runs itself on other dtypes (long doubles).
        fill: `fill(x, y)` computes y of a vector, and `fill(x, y, slope)` y' as well.
    """

    textbook: type[Op]
    fill: Callable[..., None]

    def forward(self, x: Array, **statics: Any) -> Result:
        if x.dtype.char not in _LIMITS:
            y, saved = self.textbook.forward(np, x, **statics)
            (slope,) = self.textbook.backward(np, np.ones_like(y), saved, (True,), **statics)
            return y, slope
        return _by_slices(self.fill, (x,), 2, **statics)

    def infer(self, x: Array, **statics: Any) -> Array:
        if x.dtype.char not in _LIMITS:
            return self.textbook.forward(np, x, **statics)[0]
        return _by_slices(self.fill, (x,), 1, **statics)[0]

    def backward(self, dy: Array, slope: Any, needs: Needs, **statics: Any) -> Gradients:
        return (np.multiply(dy, slope),)


class tanh:
    """y = tanh x;  dx = dy/cosh² x = dy·e/((1 + e)/2)²,  e = e^(-2|x|)"""

    @staticmethod
    def forward(x: Array) -> Result:
        return np.tanh(x), x

    @staticmethod
    def backward(dy: Array, x: Array, needs: Needs) -> Gradients:
        return tuple(_by_slices(_tanh_backward, (x, dy), 1))


def _tanh_backward(x: Array, dy: Array, dx: Array) -> None:
    (e,) = _work(1, x)
    np.absolute(x, out=e)
    e *= -2
    np.exp(e, out=e)
    np.multiply(e, 0.5, out=dx)
    dx += 0.5
    dx *= dx
    np.divide(e, dx, out=dx)
    dx *= dy


def _logistic(minus: np.ndarray, y: np.ndarray, far: bool) -> np.ndarray | None:
    """σ(x) into y and e^-x into `minus`, which holds -x.

    With `far`, too, -x may be above the limit. Where it is, σ(-x) is 1; returns where, or None.
    """
    where = None
    if far:
        limit = _LIMITS[y.dtype.char].logistic
        where = minus > limit
        tail = np.exp(-minus[where])
        np.minimum(minus, limit, out=minus)
    np.exp(minus, out=minus)
    np.add(minus, 1, out=y)
    np.divide(1, y, out=y)
    if where is not None:
        y[where] = tail
    return where


def _other(e: np.ndarray, share: np.ndarray, where: np.ndarray | None) -> np.ndarray:
    """σ(-x) into e, from what `_logistic` gave."""
    e *= share
    if where is not None:
        e[where] = 1
    return e


def _is_far(size: np.ndarray, limit: float) -> bool:
    """Whether an element is above the limit, or NaN."""
    return not np.maximum.reduce(size, axis=None) <= limit


def _sigmoid(x: Array, y: Array, slope: Array | None = None) -> None:
    (e,) = _work(1, x)
    np.negative(x, out=e)
    where = _logistic(e, y, _is_far(e, _LIMITS[x.dtype.char].logistic))
    if slope is not None:
        np.multiply(_other(e, y, where), y, out=slope)


def _silu(x: Array, y: Array, slope: Array | None = None) -> None:
    e, share = _work(2, x)
    np.negative(x, out=e)
    where = _logistic(e, share, _is_far(e, _LIMITS[x.dtype.char].logistic))
    np.multiply(x, share, out=y)
    if slope is not None:
        np.multiply(_other(e, share, where), y, out=slope)
        slope += share


def _gelu(x: Array, y: Array, slope: Array | None = None, *, approximate: str) -> None:
    (_gelu_tanh if approximate == "tanh" else _gelu_exact)(x, y, slope)


def _gelu_tanh(x: Array, y: Array, slope: Array | None) -> None:
    near = x
    e, share, square = _work(3, x)
    with np.errstate(over="ignore"):
        np.multiply(x, x, out=square)
    far = _is_far(square, _LIMITS[x.dtype.char].tanh_form)
    if far:
        near = np.clip(x, -FAR, FAR)  # further out σ(2u) is 0 or 1
        np.multiply(near, near, out=square)
    np.multiply(square, -SLOPE * CUBIC, out=e)
    e -= SLOPE
    e *= near  # -2u
    where = _logistic(e, share, far)
    np.multiply(near, share, out=y)
    if slope is not None:
        square *= 3 * SLOPE * CUBIC
        square += SLOPE  # 2u'
        np.multiply(_other(e, share, where), y, out=slope)
        slope *= square
        slope += share
    if far:
        np.multiply(x, share, out=y)


def _gelu_exact(x: Array, y: Array, slope: Array | None) -> None:
    limits = _LIMITS[x.dtype.char]
    w, bell, u, cdf = _work(4, x)
    size = np.absolute(x, out=w)
    if _is_far(size, limits.normal):
        np.minimum(size, limits.normal, out=size)
    _gaussian(size, bell, (u, cdf, y))
    np.add(size, 4, out=w)
    np.divide(1, w, out=w)
    np.multiply(w, limits.stretch, out=u)
    u += limits.shift
    first, second, *others = limits.coefficients
    below = np.multiply(u, first, out=cdf)
    below += second
    for c in others:
        below *= u
        below += c
    below *= w
    below *= bell  # Φ(-|x|)
    np.subtract(_positive(x, u), below, out=cdf)
    np.absolute(cdf, out=cdf)
    np.multiply(x, cdf, out=y)
    if slope is not None:
        np.multiply(bell, 1 / sqrt(2 * pi), out=slope)
        slope *= x
        slope += cdf


def _positive(x: Array, out: Array) -> Array:
    """1 where x > 0, else 0."""
    np.copyto(out, np.greater(x, 0, out=scratch("positive", x.shape, np.dtype(bool))))
    return out


def _gaussian(size: Array, out: Array, work: Array) -> None:
    """e^(-s²/2) of s = `size` >= 0, within a few roundings. `work` is three vectors like it."""
    head, low, rest = work
    integers, mask = _LIMITS[size.dtype.char].bits
    np.bitwise_and(size.view(integers), mask, out=head.view(integers))
    np.subtract(head, size, out=low)
    np.add(head, size, out=rest)
    low *= rest
    low *= 0.5  # (h - s)(h + s)/2
    np.multiply(head, -0.5, out=rest)
    head *= rest  # -h²/2, exact
    total = np.add(head, low, out=rest)  # -s²/2, rounded
    head -= total
    low += head  # what the rounding has taken
    np.exp(total, out=out)
    low *= out
    out += low


sigmoid: Final = _SavesSlope(activations.sigmoid, _sigmoid)
silu: Final = _SavesSlope(activations.silu, _silu)
gelu: Final = _SavesSlope(activations.gelu, _gelu)


class swiglu:
    """y = silu(g)·u of x = [g | u];  dg = dy·(u·s'),  du = dy·s with s = silu(g)

    Saved: u·s' and s.
    """

    @staticmethod
    def forward(x: Array) -> Result:
        gate, value = _halves(x)
        opened, slope = silu.forward(gate)
        y = np.multiply(opened, value)
        slope *= value
        return y, (slope, opened)

    @staticmethod
    def infer(x: Array) -> Array:
        gate, value = _halves(x)
        y = silu.infer(gate)
        y *= value
        return y

    @staticmethod
    def backward(dy: Array, saved: Saved, needs: Needs) -> Gradients:
        slope, opened = saved
        dx = _twice_as_wide(dy)
        half = dy.shape[-1]
        np.multiply(dy, slope, out=dx[..., :half])
        np.multiply(dy, opened, out=dx[..., half:])
        return (dx,)


def _halves(x: Array) -> tuple[Array, Array]:
    if x.ndim == 0 or x.shape[-1] % 2:
        raise ValueError(f"a gate and what it is for need an even last axis, not {x.shape}")
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _twice_as_wide(x: Array) -> Array:
    """Memory for (..., 2F), in the order of x (..., F)."""
    order = by_strides(x)
    shape = [2 * size if axis == x.ndim - 1 else size for axis, size in enumerate(x.shape)]
    return np.empty([shape[axis] for axis in order], x.dtype).transpose(np.argsort(order))
