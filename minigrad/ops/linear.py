"""Linear layer:  y = x Wᵀ + b, or y = max(x Wᵀ + b, 0).

Shapes: x (..., C_in), weight W (C_out, C_in), bias b (C_out,) or None, y (..., C_out).

With the N rows of x and dy stacked as matrices:

    dx = dy W        (N, C_in)
    dW = dyᵀ x       (C_out, C_in)
    db = Σ_rows dy   (C_out,)

With `activation="relu"`, dy is first set to 0 where y is 0.

Saved: x and W, which the gradients need, and with an activation also y: dy is 0 where y is 0.
"""

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.summation import sum_of


class linear(Op):
    """y = x Wᵀ + b; see the module's docstring"""

    @staticmethod
    def forward(
        xp: Xp, x: Array, weight: Array, bias: Array | None, *, activation: str | None = None
    ) -> Result:
        y = xp.matmul(x, xp.swapaxes(weight, 0, 1))  # (..., C_out)
        if bias is not None:
            y = y + bias
        if activation is None:
            return y, (x, weight, None)
        y = xp.maximum(y, 0)
        return y, (x, weight, y)

    @staticmethod
    def backward(
        xp: Xp, dy: Array, saved: Saved, needs: Needs, *, activation: str | None = None
    ) -> Gradients:
        x, weight, y = saved
        if activation is not None:
            dy = xp.where(y == 0, 0, dy)  # not where y is NaN
        c_out, c_in = weight.shape
        rows = xp.reshape(dy, (-1, c_out))  # (N, C_out)
        dx = xp.matmul(dy, weight) if needs[0] else None
        dweight = None
        if needs[1]:
            dweight = xp.matmul(xp.swapaxes(rows, 0, 1), xp.reshape(x, (-1, c_in)))
        dbias = sum_of(xp, rows, 0) if needs[2] else None
        return dx, dweight, dbias
