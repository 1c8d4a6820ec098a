"""The exceptions of minigrad. Each says what is wrong and what to do about it."""


class ShapeError(ValueError):
    """Arrays whose shapes do not fit an op. Names the op and the shapes."""


class AxisError(ShapeError, IndexError):
    """An axis that a tensor does not have, or that is given twice."""


class GraphFreedError(RuntimeError):
    """A backward pass through a graph whose saved arrays were freed by an earlier one."""


class InPlaceError(RuntimeError):
    """An in-place change to a tensor that a graph depends on."""


class NonFiniteError(FloatingPointError):
    """The first NaN or Inf that `detect_nan` saw. Names the op, its shapes and the module.

    Attributes:
        op: name of the op.
        phase: "forward" or "backward".
        module: dotted path of the module that was running, or "" outside any module.
    """

    def __init__(self, message: str, *, op: str, phase: str, module: str) -> None:
        super().__init__(message)
        self.op = op
        self.phase = phase
        self.module = module


class DeviceError(RuntimeError):
    """A device that does not exist, or arrays of two devices in one op."""


class CaptureWarning(UserWarning):
    """A function runs kernel by kernel because it could not be captured as a CUDA graph."""


class NoGradientWarning(UserWarning):
    """An optimizer's step changes nothing, as none of its parameters has a gradient."""


class PrecisionError(DeviceError):
    """A precision of matmuls that a device does not have, or that is unknown."""


class KernelFallbackWarning(UserWarning):
    """A kernel does not support its inputs, so a slower implementation runs instead.

    Given once for each op and reason. The results are right; the message says what the kernel
    needs.
    """
