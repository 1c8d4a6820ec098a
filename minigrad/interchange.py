"""How values come into tensors and leave them: arrays, numbers, text, DLPack, copies, pickles."""

from __future__ import annotations

import copy as copy_module
from typing import Any

import numpy as np

from minigrad.graph import Variable
from minigrad.state import STATE
from minigrad.version import Version


class Interchange(Variable):
    """The methods of `minigrad.Tensor` by which its values leave the engine."""

    __slots__ = ()

    data: Any

    def __repr__(self) -> str:
        body = np.array2string(self.on_host(), separator=", ", prefix="Tensor(", threshold=60)
        notes = f", shape={self.shape}" if self.size > 60 or self.size == 0 else ""
        notes += f", dtype={self.dtype}"
        if self.device.kind != "cpu":
            notes += f", device='{self.device}'"
        if self.node is not None:
            notes += f", made by {self.node.op.name!r}"
        elif self.requires_grad:
            notes += ", requires_grad=True"
        return f"Tensor({body}{notes})"

    def __format__(self, spec: str) -> str:
        """`f"{loss:.3f}"`: a tensor without axes as its number. Without a format, its repr.

        Raises:
            TypeError: there is a format and the tensor has axes.
        """
        if not spec:
            return str(self)
        if self.ndim:
            raise TypeError(
                f"the format {spec!r} is for one number, the tensor has shape {self.shape}: format "
                "its elements, or .item() if there is one"
            )
        return format(self.item(), spec)

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the tensor's own memory on the CPU, a copy from a GPU."""
        return self.data if isinstance(self.array, np.ndarray) else self.array.get()

    def on_host(self) -> np.ndarray:
        """As `numpy()`, but only for reading."""
        return self.array if isinstance(self.array, np.ndarray) else self.array.get()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """For `numpy.asarray` and functions that call it: the memory, as `numpy()`.

        Raises:
            TypeError: the tensor is in a graph, which an array would leave. Not under `no_grad()`.
        """
        if self.requires_grad and STATE.grad_enabled:
            raise TypeError(
                "this tensor is in a graph, which a NumPy array would cut silently. Join tensors "
                "with minigrad.stack(list) or minigrad.concatenate(list). Where no gradient is "
                "needed, .numpy() gives the array and .detach() a tensor outside of the graph."
            )
        if copy:
            return self.on_host().astype(dtype or self.dtype)
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"an array of dtype {dtype} is a copy of a {array.dtype} tensor")
            return array.astype(dtype)
        return array

    def __copy__(self) -> Any:
        """Another tensor over the same memory, at the same place in the graph."""
        result = type(self).__new__(type(self))
        for name in ("array", "grad", "requires_grad", "node", "leaf_hooks", "version"):
            setattr(result, name, getattr(self, name))
        if hasattr(self, "__dict__"):  # of a subclass without slots
            vars(result).update(vars(self))
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        self.require_no_node("copied")
        result = copy_module.copy(self)
        result.array = self.array.copy()
        result.grad = copy_module.deepcopy(self.grad, memo)
        result.version = Version()
        result.leaf_hooks = ()
        return result

    def __reduce_ex__(self, protocol: Any) -> Any:
        self.require_no_node("pickled")
        return object.__reduce_ex__(self, protocol)

    def __getstate__(self) -> Any:
        state: Any = super().__getstate__()
        return state[0], {**state[1], "leaf_hooks": ()}  # many functions cannot be pickled

    def require_no_node(self, what: str) -> None:
        if self.node is not None:
            raise TypeError(f"the result of an op cannot be {what} with its graph: use .detach()")

    def item(self) -> Any:
        """The only element as a Python number.

        Raises:
            ValueError: there is not exactly one element.
        """
        if self.size != 1:
            raise ValueError(f"item() needs a single element, the shape is {self.shape}")
        return self.array.item()

    def tolist(self) -> Any:
        return self.on_host().tolist()

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
                f"the truth of a tensor of shape {self.shape} is ambiguous; use .any() or .all()"
            )
        return bool(self.item())

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """DLPack: hands the memory to PyTorch, JAX or CuPy, without a copy unless one is asked for.

        Raises:
            BufferError: the tensor is in a graph.
        """
        if self.requires_grad:
            raise BufferError("export a tensor in a graph with .detach(): DLPack carries no graph")
        options = {"max_version": max_version, "dl_device": dl_device, "copy": copy}
        given = {key: value for key, value in options.items() if value is not None}
        return self.data.__dlpack__(stream=stream, **given)  # old libraries know the stream alone

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def as_array(data: Any, dtype: Any) -> Any:
    """The array behind `data`; Python floats and lists of them default to float32."""
    if isinstance(dtype, int | tuple):
        raise TypeError(
            f"the second argument of a tensor is a dtype, not {dtype!r}: minigrad.zeros(shape) and "
            "minigrad.empty(shape) make tensors of a shape"
        )
    if isinstance(data, Variable):
        if data.requires_grad and STATE.grad_enabled:
            raise TypeError(
                "a tensor made from this one would leave its graph silently. Use it as it is, or "
                ".detach() where no gradient is needed; .astype(dtype) and .to(device) are "
                "differentiable, and nn.Parameter(x) makes a leaf of its own."
            )
        return as_array(data.array, dtype)
    if isinstance(data, np.ndarray) or hasattr(data, "__cuda_array_interface__"):
        if isinstance(data, np.ndarray) and type(data) is not np.ndarray:
            data = _plain_array(data)
        array = data if dtype is None or data.dtype == dtype else data.astype(dtype)
    else:
        try:
            array = np.asarray(data, dtype=dtype)
        except ValueError as error:
            if "inhomogeneous" not in str(error):
                raise
            raise ValueError(
                "nested lists must be of equal lengths to become a tensor: pad the shorter ones"
            ) from error
        if dtype is None and array.dtype == np.float64 and not isinstance(data, np.generic):
            array = array.astype(np.float32)
    if data is None:
        raise TypeError(
            "a tensor holds numbers or booleans, not None, which is what .grad is before backward()"
            " and what a function without a return gives"
        )
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a tensor holds numbers or booleans, not {array.dtype} ({data!r:.60})")
    return array


def _plain_array(array: np.ndarray) -> np.ndarray:
    """A matrix, a memory map and their like as the array that they are, without a copy."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            "a tensor has no mask: give .filled(value) of the masked array, and the mask beside it"
        )
    return array.view(np.ndarray)


def plain_index(index: Any) -> Any:
    """An index with copies of its tensors and lists, so that later changes do not matter."""
    if isinstance(index, tuple):
        return tuple(plain_index(i) for i in index)
    if isinstance(index, list):
        return np.asarray(index, dtype=None if index else np.intp)
    if isinstance(index, Variable):
        index = index.array
    return index.copy() if hasattr(index, "__array__") else index
