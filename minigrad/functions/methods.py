"""The operators and methods of tensors that are functions of the same name.

A line `exp: Final = F.exp` makes `x.exp()` of `F.exp(x)`, here and for type checkers, to which
`Final` says that it has the function's type. Every function of a tensor is a method where NumPy's
arrays or PyTorch's tensors have one of its name and meaning. The arithmetic that everybody reads
first, `+ - * / @ **`, is in `minigrad.tensor`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

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

    __pos__: Final = F.positive
    __abs__: Final = F.abs
    __invert__: Final = F.bitwise_invert
    __floordiv__: Final = F.floor_divide
    __mod__: Final = F.remainder
    __and__: Final = F.bitwise_and
    __or__: Final = F.bitwise_or
    __xor__: Final = F.bitwise_xor
    __lshift__: Final = F.bitwise_left_shift
    __rshift__: Final = F.bitwise_right_shift
    __lt__: Final = F.less
    __le__: Final = F.less_equal
    __gt__: Final = F.greater
    __ge__: Final = F.greater_equal

    __rfloordiv__: Final = reflected(F.floor_divide)
    __rmod__: Final = reflected(F.remainder)
    __rand__: Final = reflected(F.bitwise_and)
    __ror__: Final = reflected(F.bitwise_or)
    __rxor__: Final = reflected(F.bitwise_xor)
    __rlshift__: Final = reflected(F.bitwise_left_shift)
    __rrshift__: Final = reflected(F.bitwise_right_shift)

    __iadd__: Final = in_place("add")
    __isub__: Final = in_place("subtract")
    __imul__: Final = in_place("multiply")
    __itruediv__: Final = in_place("divide")
    __ipow__: Final = in_place("power")
    __imatmul__: Final = in_place("matmul")
    __ifloordiv__: Final = in_place("floor_divide")
    __imod__: Final = in_place("remainder")
    __iand__: Final = in_place("bitwise_and")
    __ior__: Final = in_place("bitwise_or")
    __ixor__: Final = in_place("bitwise_xor")
    __ilshift__: Final = in_place("bitwise_left_shift")
    __irshift__: Final = in_place("bitwise_right_shift")

    # Those whose arguments are not simply the function's

    def reshape(self, *shape: Any, copy: bool | None = None) -> Tensor:
        """`x.reshape(2, 3)` as well as `x.reshape((2, 3))`."""
        return F.reshape(self, shape[0] if len(shape) == 1 else shape, copy=copy)

    def transpose(self: Any, *axes: Any) -> Tensor:
        """`x.transpose(1, 0)` as well as `x.transpose((1, 0))`.

        Warns if two numbers leave a matrix as it is: in PyTorch they exchange its axes.
        """
        written = len(axes) == 2 and all(type(axis) is int for axis in axes)  # not computed
        if written and axes in ((0, 1), (0, -1)) and self.ndim == 2:
            warnings.warn(
                f"transpose{axes} names the new order of all axes and so changes nothing: .T "
                "turns a matrix, .swapaxes(0, 1) exchanges two axes",
                UserWarning,
                stacklevel=2,
            )
        return F.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def tile(self, *repetitions: Any) -> Tensor:
        """`x.tile(2, 3)` as well as `x.tile((2, 3))`."""
        return F.tile(self, repetitions[0] if len(repetitions) == 1 else repetitions)

    def where(self, condition: Any, other: Any) -> Tensor:
        """x where the condition holds, `other` elsewhere, as PyTorch's method."""
        return F.where(condition, self, other)

    def __contains__(self, value: Any) -> bool:
        """Whether an element equals `value`, as NumPy."""
        try:
            return bool(F.any(F.equal(self, value)))
        except TypeError:  # what is no number is no element
            return False

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

    abs: Final = F.abs
    acos: Final = F.arccos
    acosh: Final = F.arccosh
    add: Final = F.add
    all: Final = F.all
    any: Final = F.any
    arccos: Final = F.arccos
    arccosh: Final = F.arccosh
    arcsin: Final = F.arcsin
    arcsinh: Final = F.arcsinh
    arctan: Final = F.arctan
    arctan2: Final = F.arctan2
    arctanh: Final = F.arctanh
    argmax: Final = F.argmax
    argmin: Final = F.argmin
    argsort: Final = F.argsort
    asin: Final = F.arcsin
    asinh: Final = F.arcsinh
    astype: Final = F.astype
    atan: Final = F.arctan
    atan2: Final = F.arctan2
    atanh: Final = F.arctanh
    bitwise_and: Final = F.bitwise_and
    bitwise_left_shift: Final = F.bitwise_left_shift
    bitwise_or: Final = F.bitwise_or
    bitwise_right_shift: Final = F.bitwise_right_shift
    bitwise_xor: Final = F.bitwise_xor
    broadcast_to: Final = F.broadcast_to
    ceil: Final = F.ceil
    clip: Final = F.clip
    clone: Final = F.clone
    copysign: Final = F.copysign
    cos: Final = F.cos
    cosh: Final = F.cosh
    count_nonzero: Final = F.count_nonzero
    cumprod: Final = F.cumprod
    cumsum: Final = F.cumsum
    diagonal: Final = F.diagonal
    diff: Final = F.diff
    divide: Final = F.divide
    dot: Final = F.dot
    erf: Final = F.erf
    exp: Final = F.exp
    expand_dims: Final = F.expand_dims
    expm1: Final = F.expm1
    flatten: Final = F.flatten
    flip: Final = F.flip
    floor: Final = F.floor
    floor_divide: Final = F.floor_divide
    greater: Final = F.greater
    greater_equal: Final = F.greater_equal
    hypot: Final = F.hypot
    isfinite: Final = F.isfinite
    isinf: Final = F.isinf
    isnan: Final = F.isnan
    less: Final = F.less
    less_equal: Final = F.less_equal
    log: Final = F.log
    log10: Final = F.log10
    log1p: Final = F.log1p
    log2: Final = F.log2
    log_softmax: Final = F.log_softmax
    logaddexp: Final = F.logaddexp
    logical_and: Final = F.logical_and
    logical_not: Final = F.logical_not
    logical_or: Final = F.logical_or
    logical_xor: Final = F.logical_xor
    logsumexp: Final = F.logsumexp
    matmul: Final = F.matmul
    max: Final = F.max
    maximum: Final = F.maximum
    mean: Final = F.mean
    min: Final = F.min
    minimum: Final = F.minimum
    moveaxis: Final = F.moveaxis
    multiply: Final = F.multiply
    negative: Final = F.negative
    nextafter: Final = F.nextafter
    nonzero: Final = F.nonzero
    norm: Final = F.norm
    not_equal: Final = F.not_equal
    outer: Final = F.outer
    positive: Final = F.positive
    pow: Final = F.power
    prod: Final = F.prod
    ravel: Final = F.ravel
    reciprocal: Final = F.reciprocal
    relu: Final = F.relu
    remainder: Final = F.remainder
    repeat: Final = F.repeat
    roll: Final = F.roll
    round: Final = F.round
    searchsorted: Final = F.searchsorted
    sigmoid: Final = F.sigmoid
    sign: Final = F.sign
    signbit: Final = F.signbit
    sin: Final = F.sin
    sinh: Final = F.sinh
    softmax: Final = F.softmax
    sort: Final = F.sort
    sqrt: Final = F.sqrt
    square: Final = F.square
    squeeze: Final = F.squeeze
    std: Final = F.std
    subtract: Final = F.subtract
    sum: Final = F.sum
    swapaxes: Final = F.swapaxes
    take: Final = F.take
    tan: Final = F.tan
    tanh: Final = F.tanh
    topk: Final = F.topk
    trace: Final = F.trace
    tril: Final = F.tril
    triu: Final = F.triu
    trunc: Final = F.trunc
    unique: Final = F.unique
    var: Final = F.var

    copy: Final = F.clone
    cholesky: Final = F.linalg.cholesky
    cross: Final = F.linalg.cross
    det: Final = F.linalg.det
    matrix_power: Final = F.linalg.matrix_power
    slogdet: Final = F.linalg.slogdet
    solve: Final = F.linalg.solve


EARLIER = ("2021.12", "2022.12", "2023.12")  # versions of which the one followed is an extension


def add_to(tensor: type) -> None:
    """Make all of them methods of the class of tensors."""
    for name, value in vars(Methods).items():
        if isinstance(value, FunctionType):
            setattr(tensor, name, value)
