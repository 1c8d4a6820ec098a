"""ReLU and GELU. Twins of the classes of the same names in `minigrad.ops.activations`.

Shapes: any. Forward is one launch, and so is backward.

Saved: x. GELU's backward computes Φ again, which is faster than storing and loading it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, dense, element_blocks, real_of, size_of
from minigrad.kernels.cuda.support import of_floats
from minigrad.op import Array, Gradients, Needs, Result

SOURCE = Source(
    "activations",
    "relu_forward<{real}>",
    "relu_backward<{real}>",
    "gelu_forward<{real}>",
    "gelu_backward<{real}>",
)


class relu:
    """y = max(x, 0);  dx = 0 where x <= 0, else dy. NaN stays NaN."""

    supports: Final = staticmethod(of_floats)

    @staticmethod
    def forward(x: Array) -> Result:
        x = dense(x)
        return _launch("relu_forward", x), x

    @staticmethod
    def backward(dy: Array, x: Array, needs: Needs) -> Gradients:
        return (_launch("relu_backward", dense(dy), x),)


class gelu:
    """y = x·Φ(x), exactly, or approximated by tanh with `approximate="tanh"`."""

    @staticmethod
    def supports(x: Array, *, approximate: str) -> str | None:
        return of_floats(x)

    @staticmethod
    def forward(x: Array, *, approximate: str) -> Result:
        x = dense(x)
        return _launch("gelu_forward", x, options=(approximate == "tanh",)), x

    @staticmethod
    def backward(dy: Array, x: Array, needs: Needs, *, approximate: str) -> Gradients:
        return (_launch("gelu_backward", dense(dy), x, options=(approximate == "tanh",)),)


def _launch(name: str, *inputs: Array, options: Sequence[Any] = ()) -> Array:
    out = cupy().empty(inputs[0].shape, inputs[0].dtype)
    SOURCE.launch(
        f"{name}<{real_of(out.dtype)}>",
        (element_blocks(out.size),),
        (256,),
        *(*inputs, out, size_of(out), *options),
        dtype=out.dtype,
    )
    return out
