"""Rotary position embedding (Su et al., RoFormer, arXiv:2104.09864).

Coordinates i and i + D/2 of the last axis are a point in the plane, rotated by an angle θ:

    y₁ = x₁·cos θ - x₂·sin θ,    y₂ = x₂·cos θ + x₁·sin θ

Shapes: x (..., D) with D even, cos and sin broadcast to (..., D/2). The gradient is rotated by -θ:
dx₁ = dy₁·cos θ + dy₂·sin θ, dx₂ = dy₂·cos θ - dy₁·sin θ.

With `heads`, x is (..., H, D) and only the first `heads` heads are rotated: the queries and keys
of packed queries, keys and values. cos and sin then broadcast to (..., heads, D/2).

Saved: cos and sin, which are constants and get no gradient.
"""

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp


class rotary(Op):
    """Rotate pairs along the last axis; see the module's docstring"""

    @staticmethod
    def forward(xp: Xp, x: Array, cos: Array, sin: Array, *, heads: int | None = None) -> Result:
        return _rotate(xp, x, cos, sin, heads), (cos, sin)

    @staticmethod
    def backward(
        xp: Xp, dy: Array, saved: Saved, needs: Needs, *, heads: int | None = None
    ) -> Gradients:
        cos, sin = saved
        return _rotate(xp, dy, cos, -sin, heads), None, None


def _rotate(xp: Xp, x: Array, cos: Array, sin: Array, heads: int | None) -> Array:
    if x.shape[-1] % 2:
        raise ValueError(f"rotary positions need an even last axis, not {x.shape[-1]}")
    if heads is not None:
        turned = _rotate(xp, x[..., :heads, :], cos, sin, None)
        return xp.concatenate([turned, x[..., heads:, :]], axis=-2)
    half = x.shape[-1] // 2
    x1, x2 = x[..., :half], x[..., half:]
    return xp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)
