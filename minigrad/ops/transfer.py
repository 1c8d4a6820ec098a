"""Moving between devices:  y = x on `device`;  dx = dy moved back to `source`.

A device is anything with `asarray(array)`, which returns the array in the device's memory.
"""

from typing import Any

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.special import on_tensors


class to_device(Op):
    """y = x on `device`; see the module's docstring"""

    exact = True

    @staticmethod
    def forward(xp: Xp, x: Array, *, device: Any, source: Any) -> Result:
        if on_tensors(xp):
            return xp.to_device(x, device), None
        return device.asarray(x), None

    @staticmethod
    def backward(
        xp: Xp, dy: Array, saved: Saved, needs: Needs, *, device: Any, source: Any
    ) -> Gradients:
        if on_tensors(xp):
            return (xp.to_device(dy, source),)
        return (source.asarray(dy),)
