"""Ops that move elements and compute nothing; their gradients move them back."""

from collections.abc import Sequence

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Shape, Xp


class reshape(Op):
    """The same elements in another shape;  dx = dy in x's shape"""

    exact = True
    view = True

    @staticmethod
    def forward(xp: Xp, x: Array, *, shape: Shape) -> Result:
        return xp.reshape(x, shape), x.shape

    @staticmethod
    def backward(xp: Xp, dy: Array, x_shape: Shape, needs: Needs, *, shape: Shape) -> Gradients:
        return (xp.reshape(dy, x_shape),)


class transpose(Op):
    """Axes in another order;  dx = dy in the inverse order"""

    exact = True
    view = True

    @staticmethod
    def forward(xp: Xp, x: Array, *, axes: Shape) -> Result:
        return xp.transpose(x, axes), None

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs, *, axes: Shape) -> Gradients:
        inverse = [0] * len(axes)
        for position, axis in enumerate(axes):
            inverse[axis] = position
        return (xp.transpose(dy, tuple(inverse)),)


class broadcast_to(Op):
    """x repeated to `shape`;  dx = dy, which the engine sums over the repeated axes"""

    exact = True
    view = True

    @staticmethod
    def forward(xp: Xp, x: Array, *, shape: Shape) -> Result:
        return xp.broadcast_to(x, shape), None

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs, *, shape: Shape) -> Gradients:
        return (dy,)


class concatenate(Op):
    """Arrays one after the other along `axis`;  each gets its part of dy"""

    exact = True

    @staticmethod
    def forward(xp: Xp, *arrays: Array, axis: int) -> Result:
        return xp.concatenate(arrays, axis=axis), [a.shape[axis] for a in arrays]

    @staticmethod
    def backward(xp: Xp, dy: Array, sizes: Sequence[int], needs: Needs, *, axis: int) -> Gradients:
        axis = axis % dy.ndim
        gradients, start = [], 0
        for size, need in zip(sizes, needs, strict=True):
            part = (slice(None),) * axis + (slice(start, start + size),)
            gradients.append(dy[part] if need else None)
            start += size
        return tuple(gradients)


class pad(Op):
    """x with constant borders, `widths` = ((before, after), ...) an axis;  dx = the middle of dy"""

    exact = True

    @staticmethod
    def forward(xp: Xp, x: Array, *, widths: tuple[tuple[int, int], ...], value: float) -> Result:
        return xp.pad(x, widths, constant_values=value), x.shape

    @staticmethod
    def backward(
        xp: Xp,
        dy: Array,
        shape: Shape,
        needs: Needs,
        *,
        widths: tuple[tuple[int, int], ...],
        value: float,
    ) -> Gradients:
        middle = tuple(
            slice(before, before + n) for (before, _), n in zip(widths, shape, strict=True)
        )
        return (dy[middle],)
