"""`Tensor`: an array, its gradient, and the op that made it.

Tensors follow NumPy: operators with broadcasting, slicing, `axis` and `keepdims`, the names of
methods. Each method calls the function of the same name in `minigrad.functions`.

The memory has two names. `data` is for users: the engine notices when it is written to.
`array` is for the engine itself, so that its own reads are not mistaken for those of a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from minigrad import autograd
from minigrad.device import Device
from minigrad.errors import InPlaceError, ShapeError
from minigrad.graph import Node, Variable, require_floats
from minigrad.hints import missing_attribute
from minigrad.interchange import Interchange, as_array, plain_index
from minigrad.state import STATE
from minigrad.version import Version

if TYPE_CHECKING:
    from minigrad.functions.methods import Methods
else:
    Methods = object  # `minigrad.functions` adds them, as they need the class


class Tensor(Interchange, Methods):
    """An n-dimensional array that can be differentiated.

    Args:
        data: an array (kept as it is, not copied), a number, nested lists, or a Tensor outside of
            any graph (whose memory is shared).
        dtype: Python floats become float32 and Python ints int64 unless a dtype is given.
        requires_grad: make it a leaf whose `.grad` a backward pass fills. Floats only.
        device: "cpu" or "gpu"; by default where `data` is.

    Raises:
        TypeError: `data` holds no numbers, or tensors in a graph, which would be cut.

    Attributes:
        data: the NumPy or CuPy array. It may be set or written to; a backward pass through a graph
            that has read the old values raises `InPlaceError` (see `minigrad.version`).
        array: the same array, for the engine, which calls `changed()` after writing to it.
        grad: the gradient that backward passes have added up, or None.
        requires_grad: whether gradients flow to or through this tensor.

    Example:
        >>> x = Tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        Tensor([2., 4.], dtype=float32)
    """

    __slots__ = ()
    __array_priority__ = 1000  # CuPy arrays on the left defer to our operators

    def __init__(
        self,
        data: Any,
        dtype: Any = None,
        *,
        requires_grad: bool = False,
        device: Device | str | None = None,
    ) -> None:
        array = as_array(data, dtype)
        if device is not None:
            array = Device(device).asarray(array)
        self.array: Any = array
        self.grad: Any = None
        self.requires_grad = requires_grad
        require_floats(self)
        self.node: Node | None = None
        self.leaf_hooks: tuple[Callable[[Any], Any], ...] = ()
        # Shared with all that share the memory, so that a change through one is seen by all.
        shared = isinstance(data, Tensor) and array is data.array
        self.version: Version = data.version if shared else Version(outside=array is data)

    def __getattr__(self, name: str) -> Any:  # asked only for what there is not
        if hasattr(type(self), name):  # a subclass's property has failed: say why
            return object.__getattribute__(self, name)
        raise AttributeError(missing_attribute(name), name=name, obj=self)

    @classmethod
    def wrap(cls, array: Any, *, requires_grad: bool = False) -> Tensor:
        """A tensor over an array that only the engine uses, without any checks."""
        tensor = cls.__new__(cls)
        tensor.array = array
        tensor.grad = None
        tensor.requires_grad = requires_grad
        tensor.node = None
        tensor.leaf_hooks = ()
        tensor.version = Version()
        return tensor

    @property
    def data(self) -> Any:
        self.version.hand_out(self.array)
        return self.array

    @data.setter
    def data(self, value: Any) -> None:
        if value is self.array:  # as after `x.data -= 1`, which has written to it
            self.changed()
            return
        array = as_array(value, None)
        if self.requires_grad and array.dtype.kind != "f":
            raise TypeError(f"a tensor that requires a gradient holds floats, not {array.dtype}")
        self.array = array
        self.version = Version(self.version.number + 1, outside=array is value)

    # What it is

    @property
    def is_leaf(self) -> bool:
        """True if no recorded op made it."""
        return self.node is None

    @property
    def T(self) -> Tensor:
        return F.transpose(self)

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return F.matrix_transpose(self)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    __hash__: Final = object.__hash__

    # NumPy's and CuPy's functions; how values leave is in `minigrad.interchange`

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return numpy_protocol.ufunc(ufunc, method, inputs, options)

    def __cupy_override_elementwise_kernel__(self, kernel: Any, *args: Any, **options: Any) -> Any:
        return numpy_protocol.cupy_kernel(kernel.name, args, options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return numpy_protocol.function(function, args, kwargs)

    # The graph

    def detach(self) -> Tensor:
        """The same memory, outside any graph."""
        result = Tensor.wrap(self.array)
        result.version = self.version
        return result

    def backward(self, gradient: Tensor | None = None, *, retain_graph: bool = False) -> None:
        """Fill `.grad` of the leaves. See `minigrad.autograd.backward`."""
        autograd.backward(self, gradient, retain_graph=retain_graph)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook(gradient)` when a backward pass knows this tensor's whole gradient.

        If the hook returns a tensor, it replaces the gradient; for a leaf that happens before it is
        added to `.grad`. Hooks run in the order in which they were registered.

        Args:
            hook: returns a tensor of the gradient's shape, or None to keep the gradient. It must
                not write to the gradient.

        Returns:
            A function that removes the hook.

        Raises:
            ValueError: the tensor requires no gradient.
        """
        if not self.requires_grad:
            raise ValueError(
                f"register_hook: the tensor of shape {self.shape} does not require a gradient, so "
                "no backward pass comes by"
            )
        node = self.node
        hooks = self.leaf_hooks if node is None else node.hooks
        self._set_hooks(node, (*hooks, hook))

        def remove() -> None:
            hooks = self.leaf_hooks if node is None else node.hooks
            self._set_hooks(node, tuple(h for h in hooks if h is not hook))

        return remove

    def _set_hooks(self, node: Any, hooks: tuple[Callable[[Any], Any], ...]) -> None:
        if node is None:
            self.leaf_hooks = hooks
        else:
            node.hooks = hooks

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
        """x[index] = value, as NumPy. A leaf that requires a gradient can be written in `no_grad`.

        Raises:
            InPlaceError: the tensor or the value is in a graph.
        """
        ours = self.node is not None or (self.requires_grad and STATE.grad_enabled)
        theirs = isinstance(value, Tensor) and value.requires_grad and STATE.grad_enabled
        if ours or theirs:
            which = "this tensor" if ours else "the assigned value"
            raise InPlaceError(
                f"{which} is part of a graph, which cannot follow an assignment to items. Build a "
                "new tensor with minigrad.where(mask, new, old) or minigrad.concatenate([...]), or "
                "use .detach() where no gradient is needed; a leaf is changed under no_grad()."
            )
        self.array[plain_index(index)] = value.array if isinstance(value, Tensor) else value
        self.changed()

    def assign(self, value: Any) -> None:
        """Overwrite all values in place, as optimizers and loaders do with parameters.

        A graph that has read the old values notices and refuses its backward pass.

        Raises:
            InPlaceError: the tensor is the result of an op.
            ShapeError: the values do not have the tensor's shape.
        """
        if self.node is not None:
            raise InPlaceError("assign() is for leaves; this tensor is the result of an op")
        values = value.array if isinstance(value, Tensor) else np.asarray(value)
        if values.shape != self.shape:
            raise ShapeError(f"assign: values of shape {values.shape} for a tensor of {self.shape}")
        self.array[...] = self.device.asarray(values)
        self.changed()

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

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return NotImplemented if other is None or isinstance(other, str) else F.equal(self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        if other is None or isinstance(other, str):
            return NotImplemented
        return F.not_equal(self, other)

    # All other operators and methods are functions of the same names: see `functions.methods`.


# At the end because these modules need the class above; its methods look them up when called.
from minigrad import functions as F  # noqa: E402
from minigrad.functions import numpy_protocol  # noqa: E402

Variable.tensor, Variable.functions = Tensor, F
