"""Reading a part of an array, and its adjoint."""

from minigrad.op import Op
from minigrad.ops.special import add_at
from minigrad.ops.special import scatter_add as scatter


class getitem(Op):
    """y = x[index];  dx = zeros with dy added at index (an element read twice gets both)"""

    exact = True
    view = True

    @staticmethod
    def forward(xp, x, *, index):
        return x[index], x.shape

    @staticmethod
    def backward(xp, dy, shape, needs, *, index):
        return (scatter(xp, dy, index, shape),)

    @staticmethod
    def add_backward(xp, total, dy, *, index):
        """Add dx to `total` in place, for the price of dy's size instead of x's."""
        add_at(xp, total, index, dy)


class scatter_add(Op):
    """y = zeros of `shape` with x added at index, the adjoint of x[index];  dx = dy[index]"""

    @staticmethod
    def forward(xp, x, *, index, shape):
        return scatter(xp, x, index, shape), None

    @staticmethod
    def backward(xp, dy, saved, needs, *, index, shape):
        return (dy[index],)
