"""An op as a value. `minigrad.apply` runs it on tensors and records it if a gradient is wanted.

An op is a class with two pure array functions. This one is complete; it has derivatives of any
order, on the CPU and on a GPU:

    class square(Op):
        # y = x²;  dx = 2·dy·x
        def forward(xp, x):
            return x * x, x

        def backward(xp, dy, x, needs):
            return (2 * dy * x,)

    y = square(x)    # or apply(square, x)

The contract:

    forward(xp, *arrays, **statics)             -> out, saved
    backward(xp, dy, saved, needs, **statics)   -> one gradient (or None) per input array

`xp` is the array namespace: NumPy, CuPy, or `minigrad.functions`, whose functions work on tensors.
With the last one the same lines are recorded as they run, which gives higher derivatives. So they
use only functions that all three have, and never write in place. `statics` are keyword-only: axes,
shapes, flags. `saved` is all that backward gets from forward. `needs[i]` says whether input i wants
a gradient; others may be skipped. The engine sums gradients over broadcast axes.

An op may set two attributes. `view = True` says that its result can share memory with its first
input. `exact = True` says that it only moves or chooses numbers, so float16 need not be widened for
it. An op that reads a part of its only input may have `add_backward(xp, total, dy, **statics)`. It
adds the input's gradient to `total` in place, where other ops have given a gradient before.

A kernel does an op's work faster on one kind of device. It has the same two functions without `xp`,
and may save something else. The arrays that it returns must be new memory, which nothing else uses,
because the engine may add into them. It may return the same array for several inputs.

    @kernel(square, "cpu")
    class fast_square:
        def forward(x): ...
        def backward(dy, saved, needs): ...

On a GPU an element-wise op gets one from two lines of CUDA C++ (`minigrad.cuda_kernel`).

A node remembers which implementation ran, so forward and backward always come from the same one.
With `minigrad.textbook()` no kernel runs. A kernel may also have

    infer(*arrays, **statics)                 -> out
    supports(*arrays, **statics)              -> None, or why the textbook has to run (GPU only)
    backward_into(dy, saved, needs, places, **statics)   -> gradients, as `backward`

`infer` runs instead of `forward` where no gradient is wanted, and saves nothing.
Where `supports` gives a reason, the textbook runs and a warning says why.
`backward_into` writes the gradients of leaves (weights) into output buffers. `places[i]` is an
uninitialised buffer of input i's shape and dtype that shares no memory with others, or None. If
the kernel returns `places[i]` itself, it has written all of it. It may also return another array,
which the engine then copies. `minigrad.autograd.write_gradients` gives a buffer for each leaf to
which nothing has been written yet. In all other cases, such as `Tensor.backward()` or the second
gradient of a weight that is used twice, the engine calls `backward`. So a kernel needs both.

A kernel with an attribute `ADDS_TO` has a keyword `so_far` in both functions. It is None, or the
gradient that input number `ADDS_TO` has from other ops already. The kernel then returns the sum of
this and its own gradient, in new memory. So a residual connection costs no extra pass in backward.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, ClassVar

Xp = Any  # the namespace of arrays: NumPy, CuPy or `minigrad.functions`
Array = Any  # NumPy's or CuPy's; a tensor where `xp` is `minigrad.functions`
Axis = int | tuple[int, ...] | None  # None stands for all axes
Shape = tuple[int, ...]
Number = Any  # a float; where a rule runs in a captured graph, an array that holds one
Saved = Any  # what forward leaves for backward
Result = tuple[Array, Saved]  # of forward
Needs = tuple[bool, ...]  # for each input, whether a gradient is wanted
Places = tuple[Any, ...]  # for each input, an array for its gradient, or None
Gradients = tuple[Any, ...]  # for each input, its gradient, or None


class _Callable(type):
    """An op is used as a class; calling it runs it on tensors."""

    runner: Callable[..., Any]

    def __call__(cls, *inputs: Any, **statics: Any) -> Any:
        return _Callable.runner(cls, *inputs, **statics)

    def __repr__(cls) -> str:
        return f"<op {cls.__module__}.{cls.__qualname__}>"


class Op(metaclass=_Callable):
    """Base class of ops; see the module's docstring for what a subclass gives.

    Attributes:
        name: how messages call the op; the class's name unless given.
        view: whether the result can share memory with the first input.
        exact: whether it only moves or chooses numbers.
        kernels: device kind ("cpu", "gpu") -> the kernel that runs there instead of the textbook.

    Raises:
        TypeError: (when it is defined) `forward` or `backward` is missing.
    """

    name: ClassVar[str]
    view: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    kernels: ClassVar[dict[str, Any]]
    forward: ClassVar[Callable[..., Any]]
    backward: ClassVar[Callable[..., Any]]
    add_backward: ClassVar[Callable[..., Any] | None] = None

    def __init_subclass__(cls) -> None:
        _make_static(cls)
        cls.name = cls.__dict__.get("name", cls.__name__.rstrip("_"))
        cls.kernels = {}
        for required in ("forward", "backward"):
            if not hasattr(cls, required):
                raise TypeError(f"the op {cls.name!r} has no {required}; see minigrad.Op")


def run_with(runner: Callable[..., Any]) -> None:
    """Make `runner(op, *inputs, **statics)` what happens when an op is called.

    The engine registers itself here (`minigrad.engine`). So this file and the pages of the textbook
    need not import tensors.
    """
    _Callable.runner = runner


def _make_static(cls: type) -> None:
    """Functions of ops and kernels have no `self`: they know only their arguments."""
    for name, value in list(vars(cls).items()):
        if isinstance(value, FunctionType):
            setattr(cls, name, staticmethod(value))


def kernel(op: type[Op], backend: str) -> Callable[[Any], Any]:
    """Class decorator: run this kernel instead of an op's textbook, on one kind of device.

    Compare it with the textbook in a test: `minigrad.check_kernel(op, *arrays)`.

    Args:
        op: the op.
        backend: "cpu" or "gpu" (also called "cuda").

    Raises:
        TypeError: `op` is not an op, or the kernel has no `forward` or no `backward`.
        ValueError: there is no such backend.
    """
    if not (isinstance(op, type) and issubclass(op, Op)):
        raise TypeError(f"kernel: {op!r} is no op; subclass minigrad.Op")
    backend = {"cuda": "gpu"}.get(backend, backend)
    if backend not in ("cpu", "gpu"):
        raise ValueError(f'kernel: backend must be "cpu" or "gpu", not {backend!r}')

    def register(pair: Any) -> Any:
        if isinstance(pair, type):
            _make_static(pair)
        for required in ("forward", "backward"):
            if not hasattr(pair, required):
                raise TypeError(f"the kernel of {op.name!r} has no {required}; see minigrad.op")
        op.kernels[backend] = pair
        return pair

    return register
