"""minigrad: a tensor and autograd engine from scratch, on NumPy (CPU) and CuPy (GPU)."""

from minigrad.installing import require_own_files  # isort: skip

require_own_files()

from minigrad import functions
from minigrad.autograd import grad
from minigrad.check_kernel import KernelError, check_kernel
from minigrad.constants import *  # noqa: F403
from minigrad.device import Device, gpu_available
from minigrad.engine import apply
from minigrad.errors import (
    DeviceError,
    GraphFreedError,
    InPlaceError,
    KernelFallbackWarning,
    NonFiniteError,
    PrecisionError,
    ShapeError,
)
from minigrad.functional import value_and_grad
from minigrad.functions import *  # noqa: F403
from minigrad.functions.data_types import __array_namespace_info__
from minigrad.gradcheck import GradientError, gradcheck, gradcheck_module
from minigrad.kernels.cuda import cuda_kernel
from minigrad.op import Op, kernel
from minigrad.precision import get_precision, set_precision, supported_precisions
from minigrad.random import Generator
from minigrad.state import detect_nan, enable_grad, no_grad, textbook
from minigrad.tensor import Tensor

# Sub-packages, so that `import minigrad as mg` is enough for `mg.nn.Linear` and `mg.optim.AdamW`.
from minigrad import functional, kernels, nn, optim  # isort: skip

__version__ = "0.2.0"
