"""Device arrays of the stand-in, which wrap NumPy arrays."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.gpu.shim.build import FORWARD
from tests.gpu.stand_in.names import CUBLAS, VIEWS

GUARD = 4096  # bytes on either side of an allocation
ALIGNED = 512  # bytes, as CuPy's memory pool does
GUARD_BYTE = 0xFF  # as floats NaN, as ids -1, so that reads beside an array are found too


class CaptureError(RuntimeError):
    """Something that a capturing stream does not allow."""


class Engine:
    """The state that all arrays of one stand-in share: counters, the captured graph, kernels."""

    def __init__(self, libraries: Any) -> None:
        self.libraries = libraries
        self.counts: Counter[str] = Counter()  # "launches", "h2d", "d2h", and each kernel's name
        self.graph: list[Callable[[], None]] | None = None
        self.stream: Any = None  # the current stream, None for the default one
        self.malloc: Any = None  # `malloc` of a private memory pool, if one is in use
        self.schedule = FORWARD
        self.exposed: dict[int, np.ndarray] = {}  # address -> array whose pointer was taken
        self.device, self.devices = 0, 1  # the current GPU, and how many there are
        self.busy: set[Any] = set()  # streams with work that was not waited for

    def begin_work(self) -> None:
        """Work starts on the current stream. Results of other streams may not be ready yet."""
        others = [stream for stream in self.busy if stream is not self.stream]
        if others:
            raise RuntimeError("another stream is still at work, and nobody has waited for it")
        if self.stream is not None and self.graph is None:
            self.busy.add(self.stream)

    def transfer(self, kind: str) -> None:
        self.begin_work()
        if self.graph is not None:
            raise CaptureError(f"the stream is capturing: no {kind} transfer is allowed")
        self.counts[kind] += 1

    def execute(self, name: str, function: Callable[[], Any], out: Array | None = None) -> Any:
        """Run or record one operation; its results become device arrays."""
        self.begin_work()
        self.counts["launches"] += 1
        self.counts[name] += 1
        if self.graph is not None and name in CUBLAS:
            raise CaptureError(f"the stream is capturing: CuPy does not call cuBLAS for {name!r}")
        if out is None:
            results = function()
            wrapped = self.wrap(results)
            targets = wrapped if isinstance(wrapped, (list, tuple)) else (wrapped,)
        else:
            wrapped, targets = out, (out,)

        def run() -> None:
            values = function()
            for target, value in zip(
                targets, values if isinstance(values, (list, tuple)) else (values,), strict=True
            ):
                target._host[...] = value

        if self.graph is not None:
            self.graph.append(run)
            for target in targets:  # computed only when the graph is launched
                if out is None:
                    poison(target._host)
        elif out is not None:
            run()
        return wrapped

    def expose(self, array: Array) -> Any:
        """An array's address, for a library that takes pointers."""
        owner = array._memory
        if owner is None:
            owner = array._host
            while isinstance(owner.base, np.ndarray):
                owner = owner.base
        self.exposed[owner.ctypes.data] = owner
        return SimpleNamespace(ptr=array._host.ctypes.data)

    def use_memory(self, memory: np.ndarray | None = None) -> None:
        """Record an allocation from the memory pool in use."""
        if self.malloc is not None:
            self.malloc(0)
            if memory is not None:
                self.malloc.__self__.blocks.append(weakref.ref(memory))
        elif self.graph is not None:
            raise CaptureError("memory of a graph must come from a pool of its own")

    def wrap(self, result: Any) -> Any:
        if isinstance(result, (np.ndarray, np.generic)):
            return self._adopt(np.asarray(result))
        if isinstance(result, tuple):  # a named one as well
            return tuple(map(self.wrap, result))
        return type(result)(self.wrap(r) for r in result) if isinstance(result, list) else result

    def _adopt(self, host: np.ndarray) -> Array:
        """A device array with NumPy's result, in memory like CuPy's; views are not copied."""
        if host.base is not None or not host.flags.forc:
            self.use_memory()
            return Array(self, host)
        turned = host if host.flags.c_contiguous else host.T
        result = self.allocate(turned.shape, host.dtype)
        result._host[...] = turned
        if turned is not host:
            result._host = result._host.T
        return result

    def allocate(self, shape: Any, dtype: Any = float) -> Array:
        """Memory full of garbage between guards, aligned like CuPy's."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = np.full(size + 2 * GUARD + ALIGNED, GUARD_BYTE, np.uint8)
        self.use_memory(memory)
        start = -memory.ctypes.data % ALIGNED  # guards are whole multiples of it
        memory = memory[start : start + size + 2 * GUARD]
        host = memory[GUARD : GUARD + size].view(dtype).reshape(shape)
        poison(host)
        return Array(self, host, memory)


def poison(host: np.ndarray) -> None:
    """Fill with 0xff bytes."""
    if host.size and host.flags.c_contiguous:
        host.reshape(-1).view(np.uint8)[:] = 0xFF


def bare(value: Any, what: str) -> Any:
    """The NumPy arrays inside device arrays. Refuses host arrays and arrays of other GPUs."""
    if isinstance(value, Array):
        if value._gpu != value._engine.device:
            current = value._engine.device
            raise RuntimeError(
                f"{what}: an array of GPU {value._gpu}, the current one is {current}"
            )
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"{what}: Unsupported type {type(value)} (a host array)")
    if isinstance(value, (list, tuple)):
        return type(value)(bare(v, what) for v in value)
    return value


class Array:
    """A device array."""

    __array_priority__ = 100

    def __init__(self, engine: Engine, host: np.ndarray, memory: np.ndarray | None = None) -> None:
        self._engine, self._host, self._memory = engine, host, memory
        self._gpu = engine.device  # the GPU that it lies on
        self.base = None if memory is not None else host.base  # as einsum's result may be a view

    def _view(self, host: np.ndarray) -> Array:
        """A view of this array's memory."""
        result = Array(self._engine, host, self._memory)
        result._gpu = self._gpu
        result.base = self if self.base is None else self.base
        return result

    def _call(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        if name in VIEWS:
            args = [a._host if isinstance(a, Array) else a for a in args]
            return self._view(function(*args, **kwargs))
        args = [bare(a, name) for a in args]
        kwargs = {key: bare(value, name) for key, value in kwargs.items()}
        if out is not None and not isinstance(out, Array):
            raise TypeError(f"{name}: out must be a device array")
        if out is not None:
            kwargs["dtype"] = None
            kwargs.pop("dtype")
            check = function(*args, **kwargs)
            if not np.can_cast(check.dtype, out.dtype, "same_kind"):
                raise TypeError(f"{name}: cannot cast {check.dtype} to {out.dtype}")
        return self._engine.execute(name, lambda: function(*args, **kwargs), out)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        return self._call(ufunc.__name__, ufunc, *inputs, **kwargs)

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    device = property(lambda self: DeviceContext(self._engine, self._gpu))
    T = property(lambda self: self._view(self._host.T))
    data = property(lambda self: self._engine.expose(self))
    # CuPy's also has the pointer. Here this only marks a device array, without access to memory.
    __cuda_array_interface__ = property(lambda self: {"version": 3, "shape": self.shape})

    def view(self, dtype: Any) -> Array:
        return self._view(self._host.view(dtype))

    def get(self, out: np.ndarray | None = None) -> np.ndarray:
        self._engine.transfer("d2h")
        if out is None:
            return self._host.copy()
        if (out.dtype, out.shape) != (self.dtype, self.shape):
            raise TypeError(f"{out.dtype} {out.shape} cannot take {self.dtype} {self.shape}")
        out[...] = self._host
        return out

    def set(self, host: np.ndarray) -> None:
        if not isinstance(host, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if host.dtype != self.dtype:
            raise TypeError(f"{host.dtype} array cannot be set to {self.dtype} array")
        if host.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {host.shape}")
        if not self.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        self._engine.transfer("h2d")
        self._host[...] = host

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __index__(self) -> int:
        return self.get().__index__()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return f"device {self._host!r}"

    __hash__ = None  # type: ignore[assignment]

    def astype(self, dtype: Any, copy: bool = True) -> Array:
        if not copy and self.dtype == np.dtype(dtype):
            return self
        return self._call("astype", lambda a: a.astype(dtype), self)

    def copy(self) -> Array:
        return self._call("copy", np.copy, self)

    def fill(self, value: Any) -> None:
        self[...] = value

    def _index(self, index: Any) -> Any:
        """An index for NumPy. CuPy copies host index arrays, and reads boolean masks back."""
        parts = index if isinstance(index, tuple) else (index,)
        plain = []
        for part in parts:
            if isinstance(part, (np.ndarray, list)):
                self._engine.transfer("h2d")
                part = np.asarray(part)
            part = bare(part, "index") if isinstance(part, Array) else part
            if isinstance(part, np.ndarray) and part.dtype == bool:
                self._engine.transfer("d2h")
            plain.append(part)
        return tuple(plain)

    def __getitem__(self, index: Any) -> Array:
        plain = self._index(index)
        if any(isinstance(part, np.ndarray) for part in plain):
            return self._call("take", lambda a: a[plain], self)
        if Ellipsis not in plain:
            plain = (*plain, Ellipsis)  # so that one element stays an array
        return self._view(self._host[plain])

    def __setitem__(self, index: Any, value: Any) -> None:
        plain, value = self._index(index), bare(value, "assignment")
        bare(self, "assignment")
        numbers = [p for p in plain if isinstance(p, np.ndarray) and p.dtype != bool]
        places = np.stack([p.ravel() for p in np.broadcast_arrays(*numbers)]) if numbers else None
        if places is not None and places.shape[1] != np.unique(places, axis=1).shape[1]:
            raise ValueError("which of the values assigned to one place remains is undefined")
        chosen = self._host[plain]
        whole = isinstance(chosen, np.ndarray) and np.shares_memory(chosen, self._host)
        if whole or not isinstance(chosen, np.ndarray):
            target = self._host[(*plain, Ellipsis)] if Ellipsis not in plain else chosen
            self._engine.execute("copy", lambda: value, self._view(target))
        else:
            changed = lambda: _with(self._host, plain, value)  # noqa: E731
            self._engine.execute("put", changed, self)


def _with(host: np.ndarray, index: Any, value: Any) -> np.ndarray:
    result = host.copy()
    result[index] = value
    return result


CAPABILITY = "90"  # of an H100


class DeviceContext:
    """`cupy.cuda.Device`: a context manager that makes a GPU the current one."""

    def __init__(self, engine: Engine, index: int | None = None) -> None:
        self._engine, self.id = engine, engine.device if index is None else index
        self.compute_capability = CAPABILITY
        self._before: list[int] = []
        if self.id >= engine.devices:
            raise ValueError(f"there is no GPU {index}")

    def synchronize(self) -> None:
        self._engine.busy.clear()

    def __enter__(self) -> DeviceContext:
        self._before.append(self._engine.device)
        self._engine.device = self.id
        return self

    def __exit__(self, *error: Any) -> None:
        self._engine.device = self._before.pop()


OPERATORS = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide"}
OPERATORS |= {"floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and"}
OPERATORS |= {"or": "bitwise_or", "xor": "bitwise_xor", "rshift": "right_shift"}
OPERATORS |= {"pow": "power", "matmul": "matmul"}
COMPARISONS = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
COMPARISONS |= {"eq": "equal", "ne": "not_equal"}


def _add_operators() -> None:
    for short, name in (OPERATORS | COMPARISONS).items():
        ufunc = getattr(np, name)
        setattr(Array, f"__{short}__", lambda a, b, n=name, u=ufunc: a._call(n, u, a, b))
        if short in OPERATORS:
            setattr(Array, f"__r{short}__", lambda a, b, n=name, u=ufunc: a._call(n, u, b, a))
            in_place = lambda a, b, n=name, u=ufunc: a._call(n, u, a, b, out=a)  # noqa: E731
            setattr(Array, f"__i{short}__", in_place)
    for short, name in {"neg": "negative", "abs": "absolute", "invert": "invert"}.items():
        setattr(Array, f"__{short}__", lambda a, n=name: a._call(n, getattr(np, n), a))
    for name in ("sum", "mean", "max", "min", "any", "all", "argmax", "var", "cumsum", "clip"):
        method = lambda a, *args, n=name, **kwargs: a._call(n, getattr(np, n), a, *args, **kwargs)  # noqa: E731
        setattr(Array, name, method)
    for name in ("reshape", "transpose", "ravel", "squeeze", "swapaxes"):
        method = lambda a, *args, n=name: a._view(getattr(a._host, n)(*args))  # noqa: E731
        setattr(Array, name, method)


_add_operators()
