"""The operators and methods of tensors that are functions of the same name.

A line `exp = F.exp` makes `x.exp()` of `F.exp(x)`, here and for type checkers. Every function of a
tensor is a method where NumPy's arrays or PyTorch's tensors have one of its name and meaning. The
arithmetic that everybody reads first, `+ - * / @ **`, stands in `minigrad.tensor`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from minigrad import functions as F
from minigrad.constants import __array_api_version__
from minigrad.device import Device
from minigrad.functions.in_place import change

if TYPE_CHECKING:
    from minigrad.tensor import Tensor


Operator = Callable[[Any, Any], "Tensor"]


def reflected(function: Operator) -> Operator:
    """The operator of a tensor on the right."""
    return lambda self, other: function(other, self)


def in_place(name: str) -> Operator:
    """The operator that changes the tensor on the left (see `minigrad.functions.in_place`)."""
    return lambda self, other: change(name, self, other)


class Methods:
    """What `add_to` gives to tensors."""

    # Operators

    __pos__ = F.positive
    __abs__ = F.abs
    __invert__ = F.bitwise_invert
    __floordiv__ = F.floor_divide
    __mod__ = F.remainder
    __and__ = F.bitwise_and
    __or__ = F.bitwise_or
    __xor__ = F.bitwise_xor
    __lshift__ = F.bitwise_left_shift
    __rshift__ = F.bitwise_right_shift
    __lt__ = F.less
    __le__ = F.less_equal
    __gt__ = F.greater
    __ge__ = F.greater_equal

    __rfloordiv__ = reflected(F.floor_divide)
    __rmod__ = reflected(F.remainder)
    __rand__ = reflected(F.bitwise_and)
    __ror__ = reflected(F.bitwise_or)
    __rxor__ = reflected(F.bitwise_xor)
    __rlshift__ = reflected(F.bitwise_left_shift)
    __rrshift__ = reflected(F.bitwise_right_shift)

    __ifloordiv__ = in_place("floor_divide")
    __imod__ = in_place("remainder")
    __iand__ = in_place("bitwise_and")
    __ior__ = in_place("bitwise_or")
    __ixor__ = in_place("bitwise_xor")
    __ilshift__ = in_place("bitwise_left_shift")
    __irshift__ = in_place("bitwise_right_shift")

    # Those whose arguments are not simply the function's

    def reshape(self, *shape: Any, copy: bool | None = None) -> Tensor:
        """`x.reshape(2, 3)` as well as `x.reshape((2, 3))`."""
        return F.reshape(self, shape[0] if len(shape) == 1 else shape, copy=copy)

    def transpose(self, *axes: Any) -> Tensor:
        """`x.transpose(1, 0)` as well as `x.transpose((1, 0))`."""
        return F.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def tile(self, *repetitions: Any) -> Tensor:
        """`x.tile(2, 3)` as well as `x.tile((2, 3))`."""
        return F.tile(self, repetitions[0] if len(repetitions) == 1 else repetitions)

    def where(self, condition: Any, other: Any) -> Tensor:
        """x where the condition holds, `other` elsewhere, as PyTorch's method."""
        return F.where(condition, self, other)

    def __complex__(self: Any) -> complex:
        return complex(self.item())

    # What the Array API standard asks of an array

    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any:
        """`minigrad`, the library whose functions take this tensor.

        Raises:
            ValueError: another version of the standard is asked for than the library's.
        """
        if api_version not in (None, *EARLIER, __array_api_version__):
            raise ValueError(
                f"minigrad follows the Array API standard {__array_api_version__}, not "
                f"{api_version}"
            )
        return sys.modules["minigrad"]  # above this file, so it is not imported here

    def to_device(self: Any, device: Device | str, /, *, stream: Any = None) -> Tensor:
        """`to` under the standard's name.

        Raises:
            ValueError: a stream is given; copies run on the current one.
        """
        if stream is not None:
            raise ValueError("to_device takes no stream: copies run on the current one")
        return self.to(device)

    # Functions

    abs = F.abs
    acos = F.arccos
    acosh = F.arccosh
    add = F.add
    all = F.all
    any = F.any
    arccos = F.arccos
    arccosh = F.arccosh
    arcsin = F.arcsin
    arcsinh = F.arcsinh
    arctan = F.arctan
    arctan2 = F.arctan2
    arctanh = F.arctanh
    argmax = F.argmax
    argmin = F.argmin
    argsort = F.argsort
    asin = F.arcsin
    asinh = F.arcsinh
    astype = F.astype
    atan = F.arctan
    atan2 = F.arctan2
    atanh = F.arctanh
    bitwise_and = F.bitwise_and
    bitwise_left_shift = F.bitwise_left_shift
    bitwise_or = F.bitwise_or
    bitwise_right_shift = F.bitwise_right_shift
    bitwise_xor = F.bitwise_xor
    broadcast_to = F.broadcast_to
    ceil = F.ceil
    clip = F.clip
    clone = F.clone
    copysign = F.copysign
    cos = F.cos
    cosh = F.cosh
    count_nonzero = F.count_nonzero
    cumprod = F.cumprod
    cumsum = F.cumsum
    diagonal = F.diagonal
    diff = F.diff
    divide = F.divide
    dot = F.dot
    erf = F.erf
    exp = F.exp
    expand_dims = F.expand_dims
    expm1 = F.expm1
    flatten = F.flatten
    flip = F.flip
    floor = F.floor
    floor_divide = F.floor_divide
    greater = F.greater
    greater_equal = F.greater_equal
    hypot = F.hypot
    isfinite = F.isfinite
    isinf = F.isinf
    isnan = F.isnan
    less = F.less
    less_equal = F.less_equal
    log = F.log
    log10 = F.log10
    log1p = F.log1p
    log2 = F.log2
    log_softmax = F.log_softmax
    logaddexp = F.logaddexp
    logical_and = F.logical_and
    logical_not = F.logical_not
    logical_or = F.logical_or
    logical_xor = F.logical_xor
    logsumexp = F.logsumexp
    matmul = F.matmul
    max = F.max
    maximum = F.maximum
    mean = F.mean
    min = F.min
    minimum = F.minimum
    moveaxis = F.moveaxis
    multiply = F.multiply
    negative = F.negative
    nextafter = F.nextafter
    nonzero = F.nonzero
    norm = F.norm
    not_equal = F.not_equal
    outer = F.outer
    positive = F.positive
    pow = F.power
    prod = F.prod
    ravel = F.ravel
    reciprocal = F.reciprocal
    relu = F.relu
    remainder = F.remainder
    repeat = F.repeat
    roll = F.roll
    round = F.round
    searchsorted = F.searchsorted
    sigmoid = F.sigmoid
    sign = F.sign
    signbit = F.signbit
    sin = F.sin
    sinh = F.sinh
    softmax = F.softmax
    sort = F.sort
    sqrt = F.sqrt
    square = F.square
    squeeze = F.squeeze
    std = F.std
    subtract = F.subtract
    sum = F.sum
    swapaxes = F.swapaxes
    take = F.take
    tan = F.tan
    tanh = F.tanh
    topk = F.topk
    trace = F.trace
    tril = F.tril
    triu = F.triu
    trunc = F.trunc
    unique = F.unique
    var = F.var

    copy = F.clone
    cholesky = F.linalg.cholesky
    cross = F.linalg.cross
    det = F.linalg.det
    matrix_power = F.linalg.matrix_power
    slogdet = F.linalg.slogdet
    solve = F.linalg.solve


EARLIER = ("2021.12", "2022.12", "2023.12")  # versions of which the one followed is an extension


def add_to(tensor: type) -> None:
    """Make all of them methods of the class of tensors."""
    for name, value in vars(Methods).items():
        if isinstance(value, FunctionType):
            setattr(tensor, name, value)
