"""Convolution in one, two or more dimensions. As usual in deep learning, the kernel is not flipped.

    y[n, o, t] = b[o] + Σ_c Σ_p W[o, c, p] · x[n, c, t·stride + p·dilation - padding]

Here t is a position of the output and p one of the kernel; each is a tuple with a number for every
spatial axis, and x counts as 0 outside.

Shapes: x (B, C, *size), weight W (O, C/groups, *kernel), bias b (O,) or None, y (B, O, *out) with
out = ⌊(size + 2·padding - dilation·(kernel - 1) - 1)/stride⌋ + 1 along each axis.

With `groups` > 1 the channels are split into independent groups: each computes O/groups outputs
from C/groups inputs.

For one position p of the kernel, the formula is a matmul of W[:, :, p] with the elements of x that
p
is multiplied with: every stride-th one, from p·dilation on. Call them x_p (B, C, *out). So

    y = b + Σ_p W_p x_p,     dW_p = Σ_n dy x_pᵀ,     dx_p = W_pᵀ dy,     db = Σ dy

and dx is the sum of the dx_p, each at the positions that x_p was taken from.

Saved: x with its borders of zeros, and W.
"""

from math import prod

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Shape, Xp
from minigrad.ops.special import scatter_add
from minigrad.ops.summation import sum_of
from minigrad.ops.windows import output_size, positions


class convolution(Op):
    """y = W * x + b; see the module's docstring"""

    @staticmethod
    def forward(
        xp: Xp,
        x: Array,
        weight: Array,
        bias: Array | None,
        *,
        stride: Shape,
        padding: Shape,
        dilation: Shape,
        groups: int,
    ) -> Result:
        x = xp.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
        out = output_size(x.shape[2:], weight.shape[2:], stride, dilation)
        batch, channels_out = x.shape[0], weight.shape[0]
        y = 0
        for position, met in positions(weight.shape[2:], out, stride, dilation):
            y = y + xp.matmul(
                _weight_at(xp, weight, position, groups), _met(xp, x, met, out, groups)
            )
        y = xp.reshape(y, (batch, channels_out, *out))  # from (B, groups, O/groups, positions)
        if bias is not None:
            y = y + xp.reshape(bias, (-1, *(1 for _ in out)))
        return y, (x, weight)

    @staticmethod
    def backward(
        xp: Xp,
        dy: Array,
        saved: Saved,
        needs: Needs,
        *,
        stride: Shape,
        padding: Shape,
        dilation: Shape,
        groups: int,
    ) -> Gradients:
        x, weight = saved
        batch, channels_out, *out = dy.shape
        rows = xp.reshape(dy, (batch, groups, channels_out // groups, prod(out)))
        columns = xp.swapaxes(rows, -1, -2)
        kernel = weight.shape[2:]
        dx, dweights = xp.zeros(x.shape, dtype=x.dtype), []
        for position, met in positions(kernel, out, stride, dilation):
            if needs[0]:
                taken = _weight_at(xp, weight, position, groups)  # (groups, O/groups, C/groups)
                dx_p = xp.matmul(xp.swapaxes(taken, -1, -2), rows)
                dx_p = xp.reshape(dx_p, (batch, x.shape[1], *out))
                dx = dx + scatter_add(xp, dx_p, met, x.shape)
            if needs[1]:
                dw_p = sum_of(xp, xp.matmul(_met(xp, x, met, out, groups), columns), 0)
                dw_p = xp.swapaxes(dw_p, -1, -2)  # (groups, O/groups, C/groups)
                dweights.append(xp.reshape(dw_p, (channels_out, weight.shape[1])))
        inside = tuple(slice(p, n - p) for p, n in zip(padding, x.shape[2:], strict=True))
        dweight = xp.reshape(xp.stack(dweights, -1), weight.shape) if needs[1] else None
        spatial = tuple(range(2, dy.ndim))
        return (
            dx[(slice(None), slice(None), *inside)] if needs[0] else None,
            dweight,
            sum_of(xp, dy, (0, *spatial)) if needs[2] else None,
        )


def _weight_at(xp: Xp, weight: Array, position: Shape, groups: int) -> Array:
    """(O, C/groups, *kernel) -> (groups, O/groups, C/groups)"""
    taken = weight[(slice(None), slice(None), *position)]
    return xp.reshape(taken, (groups, weight.shape[0] // groups, weight.shape[1]))


def _met(xp: Xp, x: Array, met: tuple[slice, ...], out: Shape, groups: int) -> Array:
    """(B, C, *size) -> (B, groups, C/groups, positions)"""
    taken = x[met]
    return xp.reshape(taken, (x.shape[0], groups, x.shape[1] // groups, prod(out)))
