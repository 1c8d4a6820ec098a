"""Reading a part of an array, and its adjoint."""

from typing import Any

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Shape, Xp
from minigrad.ops.special import add_at
from minigrad.ops.special import scatter_add as scatter


class getitem(Op):
    """y = x[index];  dx = zeros with dy added at index (an element read twice gets both)"""

    exact = True
    view = True

    @staticmethod
    def forward(xp: Xp, x: Array, *, index: Any) -> Result:
        return x[index], x.shape

    @staticmethod
    def backward(xp: Xp, dy: Array, shape: Shape, needs: Needs, *, index: Any) -> Gradients:
        return (scatter(xp, dy, index, shape),)

    @staticmethod
    def add_backward(xp: Xp, total: Array, dy: Array, *, index: Any) -> None:
        """Add dx to `total` in place, for the price of dy's size instead of x's."""
        add_at(xp, total, index, dy)


class scatter_add(Op):
    """y = zeros of `shape` with x added at index, the adjoint of x[index];  dx = dy[index]"""

    @staticmethod
    def forward(xp: Xp, x: Array, *, index: Any, shape: Shape) -> Result:
        return scatter(xp, x, index, shape), None

    @staticmethod
    def backward(
        xp: Xp, dy: Array, saved: Saved, needs: Needs, *, index: Any, shape: Shape
    ) -> Gradients:
        return (dy[index],)
