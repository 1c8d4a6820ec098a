"""Dropout (Srivastava et al., Journal of Machine Learning Research 15, 2014), "inverted".

    y = x·keep/(1 - p),   dx = dy·keep/(1 - p)

Shapes: x (...), keep (...) booleans, True with probability 1 - p. Dividing by 1 - p keeps the
expectation, so that evaluation needs no change. The mask is an input, so the op is a pure function
and the caller chooses the random generator.

Saved: the mask.
"""

from minigrad.op import Op


class dropout(Op):
    """y = x·keep/(1 - p); see the module's docstring"""

    @staticmethod
    def forward(xp, x, keep, *, p):
        return x * keep * (1 / (1 - p)), keep

    @staticmethod
    def backward(xp, dy, keep, needs, *, p):
        return dy * keep * (1 / (1 - p)), None
