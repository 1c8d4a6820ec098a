"""`Tensor`: an array, its gradient, and the op that made it.

It speaks NumPy: operators with broadcasting, slicing, `axis` and `keepdims`, the names of NumPy's
methods. Each method calls the function of the same name in `minigrad.functions`.
"""

from __future__ import annotations

import copy as copy_module
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.device import Device, device_of
from minigrad.errors import InPlaceError, ShapeError

if TYPE_CHECKING:
    from minigrad.op import Node

Axis = int | tuple[int, ...] | None


class Tensor:
    """An n-dimensional array that can be differentiated.

    Args:
        data: an array (kept as it is, not copied), a number, nested lists, or another Tensor.
        dtype: Python floats become float32 and Python ints int64 unless a dtype is given.
        requires_grad: make it a leaf whose `.grad` a backward pass fills. Floats only.
        device: "cpu" or "gpu"; by default where `data` is.

    Attributes:
        data: the NumPy or CuPy array.
        grad: the gradient that backward passes have added up, or None.
        requires_grad: whether gradients flow to or through this tensor.

    Example:
        >>> x = Tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        Tensor([2., 4.], dtype=float32)
    """

    __slots__ = ("__weakref__", "_node", "_version", "data", "grad", "requires_grad")
    __array_priority__ = 1000  # NumPy arrays on the left defer to our operators
    __array_ufunc__ = None

    def __init__(
        self,
        data: Any,
        dtype: Any = None,
        *,
        requires_grad: bool = False,
        device: Device | str | None = None,
    ) -> None:
        array = _as_array(data, dtype)
        if device is not None:
            array = Device(device).asarray(array)
        if requires_grad and array.dtype.kind != "f":
            raise TypeError(
                f"a tensor of dtype {array.dtype} cannot require a gradient: gradients are defined "
                "for floats. Convert it with .astype('float32')."
            )
        self.data = array
        self.grad: Tensor | None = None
        self.requires_grad = requires_grad
        self._node: Node | None = None
        # Shared with all that share the memory, so that a change through one is seen by all.
        shared = isinstance(data, Tensor) and array is data.data
        self._version = data._version if shared else [0]

    @classmethod
    def wrap(cls, array: Any) -> Tensor:
        """A tensor over a NumPy or CuPy array, without looking at it: for results of ops."""
        tensor = cls.__new__(cls)
        tensor.data = array
        tensor.grad = None
        tensor.requires_grad = False
        tensor._node = None
        tensor._version = [0]
        return tensor

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def device(self) -> Device:
        return device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        """True if no recorded op made it."""
        return self._node is None

    @property
    def T(self) -> Tensor:
        return F.transpose(self)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        body = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=60)
        notes = f", shape={self.shape}" if self.size > 60 or self.size == 0 else ""
        notes += f", dtype={self.dtype}"
        if self.device.kind != "cpu":
            notes += f", device='{self.device}'"
        if self._node is not None:
            notes += f", made by {self._node.name!r}"
        elif self.requires_grad:
            notes += ", requires_grad=True"
        return f"Tensor({body}{notes})"

    __hash__ = object.__hash__

    # Out of the engine

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the tensor's own memory on the CPU, a copy from a GPU."""
        return self.data if isinstance(self.data, np.ndarray) else self.data.get()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"an array of dtype {dtype} is a copy of a {array.dtype} tensor")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise TypeError("the result of an op cannot be copied with its graph: use .detach()")
        result = copy_module.copy(self)
        result.data = self.data.copy()
        result.grad = copy_module.deepcopy(self.grad, memo)
        result._version = [0]
        return result

    def item(self) -> Any:
        """The only element as a Python number.

        Raises:
            ValueError: there is not exactly one element.
        """
        if self.size != 1:
            raise ValueError(f"item() needs a single element, the shape is {self.shape}")
        return self.data.item()

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"a tensor of dtype {self.dtype} cannot be an index")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.shape} is ambiguous; use .numpy().any() or "
                ".numpy().all()"
            )
        return bool(self.item())

    def __dlpack__(self, **kwargs: Any) -> Any:
        """DLPack: hands the memory to PyTorch, JAX or CuPy without a copy."""
        if self.requires_grad:
            raise BufferError("export a tensor in a graph with .detach(): DLPack carries no graph")
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    # The graph

    def detach(self) -> Tensor:
        """The same memory, outside any graph."""
        result = Tensor(self.data)
        result._version = self._version
        return result

    def backward(self, gradient: Tensor | None = None, *, retain_graph: bool = False) -> None:
        """Fill `.grad` of the leaves. See `minigrad.autograd.backward`."""
        autograd.backward(self, gradient, retain_graph=retain_graph)

    def to(self, device: Device | str) -> Tensor:
        """This tensor on `device`: itself if it is there already. Differentiable.

        Raises:
            DeviceError: there is no such device.
        """
        device = Device(device)
        return self if device == self.device else F.to_device(self, device)

    # Indexing

    def __getitem__(self, index: Any) -> Tensor:
        return F.getitem(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.requires_grad or (isinstance(value, Tensor) and value.requires_grad):
            which = "this tensor" if self.requires_grad else "the assigned value"
            raise InPlaceError(
                f"{which} is part of a graph, which cannot follow an assignment to items. Build a "
                "new tensor with minigrad.where(mask, new, old) or minigrad.concatenate([...]), or "
                "use .detach() where no gradient is needed."
            )
        self.data[_plain_index(index)] = value.data if isinstance(value, Tensor) else value
        self._version[0] += 1

    def assign(self, value: Any) -> None:
        """Overwrite all values in place, as optimizers and loaders do with parameters.

        A graph that has read the old values notices and refuses its backward pass.

        Raises:
            InPlaceError: the tensor is the result of an op.
            ShapeError: the values do not have the tensor's shape.
        """
        if self._node is not None:
            raise InPlaceError("assign() is for leaves; this tensor is the result of an op")
        values = value.data if isinstance(value, Tensor) else np.asarray(value)
        if values.shape != self.shape:
            raise ShapeError(f"assign: values of shape {values.shape} for a tensor of {self.shape}")
        self.data[...] = self.device.asarray(values)
        self._version[0] += 1

    # Operators

    def __add__(self, other: Any) -> Tensor:
        return F.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return F.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return F.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return F.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return F.multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return F.multiply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return F.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return F.divide(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return F.power(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return F.power(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return F.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return F.matmul(other, self)

    def __neg__(self) -> Tensor:
        return F.negative(self)

    def __abs__(self) -> Tensor:
        return F.abs(self)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return NotImplemented if other is None or isinstance(other, str) else F.equal(self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        if other is None or isinstance(other, str):
            return NotImplemented
        return F.not_equal(self, other)

    def __lt__(self, other: Any) -> Tensor:
        return F.less(self, other)

    def __le__(self, other: Any) -> Tensor:
        return F.less_equal(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return F.greater(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return F.greater_equal(self, other)

    def __invert__(self) -> Tensor:
        _require_booleans("~", self)
        return F.logical_not(self)

    def __and__(self, other: Any) -> Tensor:
        _require_booleans("&", self, other)
        return F.logical_and(self, other)

    def __or__(self, other: Any) -> Tensor:
        _require_booleans("|", self, other)
        return F.logical_or(self, other)

    # Methods with NumPy's names

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return F.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return F.mean(self, axis, keepdims)

    def var(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        return F.var(self, axis, ddof, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return F.max(self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return F.min(self, axis, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return F.argmax(self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return F.argmin(self, axis, keepdims)

    def exp(self) -> Tensor:
        return F.exp(self)

    def log(self) -> Tensor:
        return F.log(self)

    def sqrt(self) -> Tensor:
        return F.sqrt(self)

    def tanh(self) -> Tensor:
        return F.tanh(self)

    def abs(self) -> Tensor:
        return F.abs(self)

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        return F.clip(self, min, max)

    def reshape(self, *shape: Any) -> Tensor:
        return F.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        return F.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        return F.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Axis = None) -> Tensor:
        return F.squeeze(self, axis)

    def expand_dims(self, axis: int | tuple[int, ...]) -> Tensor:
        return F.expand_dims(self, axis)

    def broadcast_to(self, shape: Sequence[int]) -> Tensor:
        return F.broadcast_to(self, shape)

    def astype(self, dtype: Any) -> Tensor:
        return F.astype(self, dtype)


def _as_array(data: Any, dtype: Any) -> Any:
    """The array behind `data`; Python floats and lists of them default to float32."""
    if isinstance(data, Tensor):
        return _as_array(data.data, dtype)
    if isinstance(data, np.ndarray) or hasattr(data, "__cuda_array_interface__"):
        array = data if dtype is None or data.dtype == dtype else data.astype(dtype)
    else:
        if isinstance(data, (list, tuple)) and any(getattr(x, "requires_grad", 0) for x in data):
            raise TypeError("a list of tensors in a graph is joined by minigrad.stack(list)")
        array = np.asarray(data, dtype=dtype)
        if dtype is None and array.dtype == np.float64 and not isinstance(data, np.generic):
            array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a tensor holds numbers or booleans, not {array.dtype} ({data!r:.60})")
    return array


def _require_booleans(symbol: str, *operands: Any) -> None:
    """NumPy's operators work on the bits of integers, ours do not, so integers are refused."""
    for x in operands:
        if not isinstance(x, (bool, np.bool)) and getattr(x, "dtype", None) != np.bool:
            raise TypeError(
                f"{symbol} is for tensors of booleans. Compare first, as in (x > 0) & (x < 1), or "
                "use minigrad.logical_and, logical_or and logical_not."
            )


def _plain_index(index: Any) -> Any:
    """An index whose tensors and lists are arrays that nobody else can change."""
    if isinstance(index, tuple):
        return tuple(_plain_index(i) for i in index)
    if isinstance(index, list):
        return np.asarray(index, dtype=None if index else np.intp)
    if isinstance(index, Tensor):
        index = index.data
    return index.copy() if hasattr(index, "__array__") else index


# At the end because these modules need the class above; its methods look them up when called.
from minigrad import functions as F  # noqa: E402

from minigrad import autograd  # noqa: E402  # isort: skip
