"""minigrad: a tensor and autograd engine from scratch, on NumPy (CPU) and CuPy (GPU)."""

from minigrad.installing import require_own_files  # isort: skip

require_own_files()

import sys
from typing import TYPE_CHECKING

# `as` says to type checkers that a name is offered here.
from minigrad import functions as functions
from minigrad.autograd import grad as grad
from minigrad.check_kernel import KernelError as KernelError
from minigrad.check_kernel import check_kernel as check_kernel
from minigrad.constants import *  # noqa: F403
from minigrad.device import Device as Device
from minigrad.device import gpu_available as gpu_available
from minigrad.engine import apply as apply
from minigrad.errors import DeviceError as DeviceError
from minigrad.errors import GraphFreedError as GraphFreedError
from minigrad.errors import InPlaceError as InPlaceError
from minigrad.errors import KernelFallbackWarning as KernelFallbackWarning
from minigrad.errors import NoGradientWarning as NoGradientWarning
from minigrad.errors import NonFiniteError as NonFiniteError
from minigrad.errors import PrecisionError as PrecisionError
from minigrad.errors import ShapeError as ShapeError
from minigrad.functional import value_and_grad as value_and_grad
from minigrad.functions import *  # noqa: F403
from minigrad.functions.data_types import __array_namespace_info__ as __array_namespace_info__
from minigrad.gradcheck import GradientError as GradientError
from minigrad.gradcheck import gradcheck as gradcheck
from minigrad.gradcheck import gradcheck_module as gradcheck_module
from minigrad.kernels.cuda import cuda_kernel as cuda_kernel
from minigrad.op import Op as Op
from minigrad.op import kernel as kernel
from minigrad.precision import get_precision as get_precision
from minigrad.precision import set_precision as set_precision
from minigrad.precision import supported_precisions as supported_precisions
from minigrad.random import Generator as Generator
from minigrad.state import detect_nan as detect_nan
from minigrad.state import enable_grad as enable_grad
from minigrad.state import no_grad as no_grad
from minigrad.state import textbook as textbook
from minigrad.tensor import Tensor as Tensor

# Sub-packages, so that `import minigrad as mg` is enough for `mg.nn.Linear` and `mg.optim.AdamW`.
from minigrad import functional as functional  # isort: skip
from minigrad import kernels as kernels  # isort: skip
from minigrad import nn as nn  # isort: skip
from minigrad import optim as optim  # isort: skip

if TYPE_CHECKING:
    from minigrad import storage as storage
else:  # a checker would accept every name
    from minigrad import hints

    __getattr__ = hints.missing_name(__name__)
    for _name in ("minigrad.tensor", "minigrad.device"):
        sys.modules[_name].__class__ = hints.NoFunction

__version__ = "0.2.0"
