"""Reductions along axes, and softmax, log-softmax and log-sum-exp."""

from collections.abc import Callable
from math import inf, nan, prod
from operator import index
from typing import ClassVar

from minigrad.op import Array, Axis, Gradients, Needs, Op, Result, Saved, Shape, Xp
from minigrad.ops.special import on_tensors
from minigrad.ops.summation import centred, mean_of, sum_of


def normalize_axes(axis: Axis, ndim: int) -> Shape:
    """`axis` (None, an int or a tuple) as a tuple of distinct non-negative ints.

    As in NumPy, a number without axes may be reduced over axis 0 or -1, which changes nothing.
    """
    if ndim == 0 and hasattr(axis, "__index__") and axis in (0, -1):
        return ()
    axes = range(ndim) if axis is None else (axis,) if hasattr(axis, "__index__") else axis
    result = []
    for a in map(index, axes):
        if not -ndim <= a < ndim:
            raise ValueError(f"axis {a} is out of range for {ndim} axes")
        if a % ndim in result:
            raise ValueError(f"axis {a} is given twice")
        result.append(a % ndim)
    return tuple(result)


def _keep(xp: Xp, y: Array, shape: Shape, axis: Axis) -> Array:
    """`y` with the reduced axes put back as axes of size 1."""
    axes = normalize_axes(axis, len(shape))
    return xp.reshape(y, tuple(1 if i in axes else n for i, n in enumerate(shape)))


class sum_(Op):
    """y = Σ x over `axis`;  dx = dy, repeated along `axis`"""

    @staticmethod
    def forward(xp: Xp, x: Array, *, axis: Axis, keepdims: bool) -> Result:
        return sum_of(xp, x, axis, keepdims), x.shape

    @staticmethod
    def backward(
        xp: Xp, dy: Array, shape: Shape, needs: Needs, *, axis: Axis, keepdims: bool
    ) -> Gradients:
        return (xp.broadcast_to(_keep(xp, dy, shape, axis), shape),)


class mean(Op):
    """y = Σ x / n over `axis`, n elements;  dx = dy / n, repeated along `axis`"""

    @staticmethod
    def forward(xp: Xp, x: Array, *, axis: Axis, keepdims: bool) -> Result:
        return mean_of(xp, x, axis, keepdims), x.shape

    @staticmethod
    def backward(
        xp: Xp, dy: Array, shape: Shape, needs: Needs, *, axis: Axis, keepdims: bool
    ) -> Gradients:
        count = prod(shape[a] for a in normalize_axes(axis, len(shape)))
        return (xp.broadcast_to(_keep(xp, dy / max(count, 1), shape, axis), shape),)


class var(Op):
    """y = Σ (x - μ)² / (n - ddof) over `axis`, μ the mean of n elements;
    dx = dy·2(x - μ)/(n - ddof), as the mean's own gradient cancels
    """

    @staticmethod
    def forward(xp: Xp, x: Array, *, axis: Axis, ddof: float, keepdims: bool) -> Result:
        distance = centred(xp, x, axis)
        count = prod(x.shape[a] for a in normalize_axes(axis, x.ndim)) - ddof
        count = count if count > 0 else nan  # too few elements to know
        return sum_of(xp, distance * distance, axis, keepdims) / count, (distance, count)

    @staticmethod
    def backward(
        xp: Xp, dy: Array, saved: Saved, needs: Needs, *, axis: Axis, ddof: float, keepdims: bool
    ) -> Gradients:
        distance, count = saved
        return (_keep(xp, dy, distance.shape, axis) * (2 / count) * distance,)


class max_(Op):
    """y = max x over `axis`;  dy is shared equally among the elements that are the maximum

    A NaN counts as the maximum and as the minimum.
    """

    exact = True

    @staticmethod
    def forward(xp: Xp, x: Array, *, axis: Axis, keepdims: bool) -> Result:
        y = xp.max(x, axis=axis, keepdims=keepdims)
        return y, (x, y)

    @staticmethod
    def backward(
        xp: Xp, dy: Array, saved: Saved, needs: Needs, *, axis: Axis, keepdims: bool
    ) -> Gradients:
        x, y = saved
        is_max = (x == _keep(xp, y, x.shape, axis)) | (x != x)
        share = _keep(xp, dy, x.shape, axis) / xp.sum(is_max, axis=axis, keepdims=True)
        return (xp.where(is_max, share, 0).astype(x.dtype),)


class min_(Op):
    """y = min x over `axis`;  dy is shared equally among the elements that are the minimum"""

    exact = True

    @staticmethod
    def forward(xp: Xp, x: Array, *, axis: Axis, keepdims: bool) -> Result:
        y = xp.min(x, axis=axis, keepdims=keepdims)
        return y, (x, y)

    backward: ClassVar[Callable[..., Gradients]] = max_.backward


class logsumexp(Op):
    """y = ln Σ e^x over `axis`, shifted by the maximum so that nothing overflows;
    dx = dy·softmax(x). If all x are -inf, so is y, and dx is 0.
    """

    @staticmethod
    def forward(xp: Xp, x: Array, *, axis: Axis, keepdims: bool) -> Result:
        shift = _finite_max(xp, x, axis)
        rest = _sum_exp_minus_1(xp, x - shift, axis)
        none = rest == -1
        y = xp.log1p(xp.where(none, 0, rest)) + xp.where(none, -inf, shift)
        return y if keepdims else xp.squeeze(y, axis=normalize_axes(axis, x.ndim)), x

    @staticmethod
    def backward(
        xp: Xp, dy: Array, x: Array, needs: Needs, *, axis: Axis, keepdims: bool
    ) -> Gradients:
        e = xp.exp(x - _finite_max(xp, x, axis))
        total = sum_of(xp, e, axis, keepdims=True)
        return (_keep(xp, dy, x.shape, axis) * (e / xp.where(total == 0, 1, total)),)


class softmax(Op):
    """y = e^x / Σ e^x along `axis`;  dx = y·(dy - Σ dy·y). Where an x is +inf, all y are NaN."""

    @staticmethod
    def forward(xp: Xp, x: Array, *, axis: Axis) -> Result:
        e = xp.exp(x - _max(xp, x, axis))
        y = e / sum_of(xp, e, axis, keepdims=True)
        return y, y

    @staticmethod
    def backward(xp: Xp, dy: Array, y: Array, needs: Needs, *, axis: Axis) -> Gradients:
        return (y * (dy - sum_of(xp, dy * y, axis, keepdims=True)),)


class log_softmax(Op):
    """y = x - ln Σ e^x along `axis`;  dx = dy - e^y·Σ dy"""

    @staticmethod
    def forward(xp: Xp, x: Array, *, axis: Axis) -> Result:
        if on_tensors(xp):
            y = xp.log_softmax(x, axis=axis)
            return y, y
        shifted = x - _max(xp, x, axis)
        if 0 in x.shape:
            return shifted, shifted
        y = shifted - xp.log1p(_sum_exp_minus_1(xp, shifted, axis))
        return y, y

    @staticmethod
    def backward(xp: Xp, dy: Array, y: Array, needs: Needs, *, axis: Axis) -> Gradients:
        return (dy - xp.exp(y) * sum_of(xp, dy, axis, keepdims=True),)


def _sum_exp_minus_1(xp: Xp, shifted: Array, axis: Axis) -> Array:
    """Σ e^s - 1 of numbers whose maximum is 0 (or not: if none is 0).

    The maximum contributes the 1. Leaving it out of the sum keeps the digits of small numbers, so
    ln Σ is exact even where one x is far above the others.
    """
    is_max = shifted == 0
    number = xp.sum(is_max, axis=axis, keepdims=True)
    others = sum_of(xp, xp.where(is_max, 0, xp.exp(shifted)), axis, keepdims=True)
    return others + (number - 1).astype(shifted.dtype)


def _max(xp: Xp, x: Array, axis: Axis) -> Array:
    """The maximum along `axis`, by which softmax shifts its input. Infinite numbers become NaN.

    Any shift gives the same result, so on tensors it is a constant of the graph.
    """
    if on_tensors(xp):
        x = xp.stop_gradient(x)
    if 0 in x.shape:
        return xp.sum(x, axis=axis, keepdims=True)  # zeros: no elements have no maximum
    return xp.max(x, axis=axis, keepdims=True)


def _finite_max(xp: Xp, x: Array, axis: Axis) -> Array:
    """The maximum along `axis`, 0 where that is infinite: a shift that makes no NaN."""
    shift = _max(xp, x, axis)
    return xp.where(xp.isfinite(shift), shift, 0)
