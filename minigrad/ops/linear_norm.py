"""A linear layer, then a residual sum and a norm: the end of a post-norm block.

    y = LN(x Wᵀ + bias + residual)

Shapes: x (..., C_in), weight (C, C_in), bias (C,) or None, residual (..., C), gain and shift (C,)
or None, y (..., C). It is `linear` and then `add_layer_norm`, whose pages have the formulas. It is
an op of its own because a GPU computes it in one kernel. (Vaswani et al., arXiv:1706.03762)

Saved: what these two ops save.
"""

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.layer_norm import add_layer_norm
from minigrad.ops.linear import linear


class linear_norm(Op):
    """y = LN(x Wᵀ + bias + residual)"""

    @staticmethod
    def forward(
        xp: Xp,
        x: Array,
        weight: Array,
        bias: Array | None,
        residual: Array,
        gain: Array | None,
        shift: Array | None,
        *,
        eps: float,
    ) -> Result:
        y, saved = linear.forward(xp, x, weight, bias)
        z, saved_norm = add_layer_norm.forward(xp, y, residual, gain, shift, eps=eps)
        return z, (saved, saved_norm)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs, *, eps: float) -> Gradients:
        of_linear, of_norm = saved
        of_sum = any(needs[:3]), *needs[3:]
        dy, dresidual, dgain, dshift = add_layer_norm.backward(xp, dz, of_norm, of_sum, eps=eps)
        dx = dweight = dbias = None
        if any(needs[:3]):
            dx, dweight, dbias = linear.backward(xp, dy, of_linear, needs[:3])
        return dx, dweight, dbias, dresidual, dgain, dshift
