"""Dropout (Srivastava et al., Journal of Machine Learning Research 15, 2014), "inverted".

    y = x·keep/(1 - p),   dx = dy·keep/(1 - p)

Shapes: x (...), keep (...) booleans, True with probability 1 - p. Dividing by 1 - p keeps the
expectation, so that evaluation needs no change. The mask is an input, so the op is a pure function
and the caller chooses the random generator.

Saved: the mask.
"""

from typing import Any

from minigrad.op import Array, Gradients, Needs, Op, Result, Xp


class dropout(Op):
    """y = x·keep/(1 - p); see the module's docstring"""

    @staticmethod
    def forward(xp: Xp, x: Array, keep: Array, *, p: float) -> Result:
        return x * keep * (1 / (1 - p)), keep

    @staticmethod
    def backward(xp: Xp, dy: Array, keep: Any, needs: Needs, *, p: float) -> Gradients:
        return dy * keep * (1 / (1 - p)), None
