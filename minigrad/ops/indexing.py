"""Reading a part of an array, and its adjoint."""

from __future__ import annotations

from typing import Any

from minigrad.op import Array, Gradients, Needs, Op, Shape
from minigrad.ops.special import add_at
from minigrad.ops.special import scatter_add as scatter


class getitem(Op):
    """y = x[index];  dx = zeros with dy added at index (an element read twice gets both)"""

    exact = True
    view = True

    @staticmethod
    def forward(xp: Any, x: Array, *, index: Any) -> tuple[Array, Any]:
        return x[index], x.shape

    @staticmethod
    def backward(xp: Any, dy: Array, shape: Shape, needs: Needs, *, index: Any) -> Gradients:
        return (scatter(xp, dy, index, shape),)

    @staticmethod
    def add_backward(xp: Any, total: Array, dy: Array, *, index: Any) -> None:
        """Add dx to `total` in place, for the price of dy's size instead of x's."""
        add_at(xp, total, index, dy)


class scatter_add(Op):
    """y = zeros of `shape` with x added at index, the adjoint of x[index];  dx = dy[index]"""

    @staticmethod
    def forward(xp: Any, x: Array, *, index: Any, shape: Shape) -> tuple[Array, Any]:
        return scatter(xp, x, index, shape), None

    @staticmethod
    def backward(
        xp: Any, dy: Array, saved: Any, needs: Needs, *, index: Any, shape: Shape
    ) -> Gradients:
        return (dy[index],)
