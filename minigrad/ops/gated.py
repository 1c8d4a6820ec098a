"""SwiGLU: values times a gate (Shazeer, "GLU variants improve Transformer", arXiv:2002.05202).

    y = silu(g)·u,    x = [g | u]

Shapes: x (..., 2F), of which the first half is the gate g and the second the values u, y
(..., F). With s = silu(g):  dg = dy·u·s',  du = dy·s.

Saved: what silu saves for g, s and u.
"""

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.activations import silu


class swiglu(Op):
    """y = silu(g)·u of x = [g | u]; see the module's docstring"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        if x.ndim == 0 or x.shape[-1] % 2:
            raise ValueError(f"a gate and what it is for need an even last axis, not {x.shape}")
        half = x.shape[-1] // 2
        gate, value = x[..., :half], x[..., half:]
        opened, saved = silu.forward(xp, gate)
        return opened * value, (saved, opened, value)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs) -> Gradients:
        of_gate, opened, value = saved
        (dgate,) = silu.backward(xp, dy * value, of_gate, (True,))
        return (xp.concatenate([dgate, dy * opened], axis=-1),)
