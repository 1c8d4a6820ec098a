"""The module that takes CuPy's place: creation, raw kernels, streams and graphs."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.gpu.shim.build import Library
from tests.gpu.stand_in.array import (
    GUARD,
    GUARD_BYTE,
    Array,
    CaptureError,
    DeviceContext,
    Engine,
    bare,
)
from tests.gpu.stand_in.names import LINALG, NAMES


class Libraries:
    """Sources that have been compiled for the CPU; one object per test session."""

    def __init__(self, folder: Any, expressions: Callable[[str], tuple[str, ...] | None]) -> None:
        self.folder, self.expressions = folder, expressions
        self.by_code: dict[Any, Library] = {}
        self.lock = threading.Lock()  # kernels are compiled ahead in several threads

    def __getitem__(self, code: str) -> Library:
        return self.of(code, ())

    def of(self, code: str, names: tuple[str, ...]) -> Library:
        """One of our sources with all its kernels, or another source with the named kernels."""
        every = self.expressions(code)
        key = code if every else (code, names)
        with self.lock:
            if key not in self.by_code:
                self.by_code[key] = Library(code, every or names, self.folder)
            return self.by_code[key]


class StandIn(ModuleType):
    """The module that takes CuPy's place in `sys.modules`."""

    ndarray = Array
    __version__ = "0 (a stand-in)"

    def __init__(self, libraries: Libraries) -> None:
        super().__init__("cupy")
        self.engine = Engine(libraries)
        self.counts = self.engine.counts
        self.float32, self.float64, self.bool_ = np.float32, np.float64, np.bool_
        self.result_type, self.newaxis = np.result_type, None
        self.RawModule = functools.partial(RawModule, self.engine)
        self.cuda = SimpleNamespace(
            Device=functools.partial(DeviceContext, self.engine),
            Stream=functools.partial(Stream, self.engine),
            MemoryPool=functools.partial(MemoryPool, self.engine),
            get_current_stream=lambda: self.engine.stream or Stream(self.engine),
            alloc_pinned_memory=bytearray,
            using_allocator=functools.partial(using_allocator, self.engine),
            runtime=SimpleNamespace(
                getDeviceCount=lambda: self.engine.devices,
                memGetInfo=lambda: (8 * 10**9, 10**10),
                getDeviceProperties=lambda index: {"name": b"a stand-in"},
            ),
        )

        self.linalg = SimpleNamespace(
            **{
                name: functools.partial(self._call, name, of=getattr(np.linalg, name))
                for name in LINALG
            }
        )
        self._pool = MemoryPool(self.engine)

    def get_default_memory_pool(self) -> MemoryPool:
        if self.engine.graph is not None:
            raise CaptureError("memory of a graph must come from a pool of its own")
        return self._pool

    def __getattr__(self, name: str) -> Any:
        if name not in NAMES:
            raise AttributeError(f"the stand-in for CuPy has no {name!r}")
        return functools.partial(self._call, name)

    def _call(self, name: str, *args: Any, of: Any = None, **kwargs: Any) -> Any:
        return Array._call(self._any(args), name, of or getattr(np, name), *args, **kwargs)

    def _any(self, args: Any) -> Array:
        """The first device array among the arguments, for views of it; or an empty one."""
        first = args[0] if args else None
        return first if isinstance(first, Array) else Array(self.engine, np.empty(0))

    def asarray(self, value: Any, dtype: Any = None) -> Array:
        if isinstance(value, Array):
            return value if dtype is None else value.astype(dtype, copy=False)
        host = np.array(value, dtype)
        if isinstance(value, (np.ndarray, list, tuple)):
            self.engine.transfer("h2d")
        result = self.engine.allocate(host.shape, host.dtype)
        result._host[...] = host
        return result

    array = asarray

    def asnumpy(self, value: Any) -> np.ndarray:
        return value.get()

    def may_share_memory(self, a: Array, b: Array) -> bool:
        return np.may_share_memory(bare(a, "may_share_memory"), bare(b, "may_share_memory"))

    def empty(self, shape: Any, dtype: Any = float) -> Array:
        return self.engine.allocate(shape, dtype)

    def zeros(self, shape: Any, dtype: Any = float) -> Array:
        result = self.engine.allocate(shape, dtype)
        self.engine.execute("zeros", lambda: np.dtype(dtype).type(0), result)
        return result

    @property
    def add(self) -> Any:
        """The ufunc, because it has `at`."""
        function = functools.partial(self._call, "add")
        function.at = self._add_at  # type: ignore[attr-defined]
        return function

    def _add_at(self, target: Array, index: Any, values: Any) -> None:
        plain, values = target._index(index), bare(values, "add.at")

        def total() -> np.ndarray:
            result = target._host.copy()
            np.add.at(result, plain, values)
            return result

        self.engine.execute("add.at", total, target)


class RawModule:
    """`cupy.RawModule`, whose kernels run through the CPU shim."""

    def __init__(
        self, engine: Engine, *, code: str, options: Any, name_expressions: tuple[str, ...]
    ) -> None:
        if not code.isascii():  # CuPy writes it to a file in the locale's encoding
            raise UnicodeEncodeError("ascii", code, 0, len(code), "sources must be ASCII")
        self.engine, self.code, self.names = engine, code, name_expressions

    def get_function(self, name: str) -> Callable[..., None]:
        if name not in self.names:
            raise KeyError(f"{name!r} is not among the module's name expressions")
        kernels = self.engine.libraries.of(self.code, self.names).kernels
        return functools.partial(self._launch, kernels[name])

    def _launch(self, kernel: Any, grid: Any, block: Any, args: Any) -> None:
        for i, argument in enumerate(args):
            if not isinstance(argument, (Array, np.generic)):
                raise TypeError(f"{kernel.name}: argument {i} is a {type(argument).__name__}")
        plain = [bare(argument, kernel.name) for argument in args]
        memories = [a._memory for a in args if isinstance(a, Array) and a._memory is not None]

        def run() -> None:
            kernel(grid, block, plain, self.engine.schedule)
            for memory in memories:
                if (memory[:GUARD] != GUARD_BYTE).any() or (memory[-GUARD:] != GUARD_BYTE).any():
                    raise MemoryError(f"{kernel.name} wrote outside of an array")

        self.engine.begin_work()
        self.engine.counts["launches"] += 1
        self.engine.counts[kernel.name.partition("<")[0]] += 1
        if self.engine.graph is None:
            run()
        else:
            self.engine.graph.append(run)


class MemoryPool:
    """`cupy.cuda.MemoryPool`. One that a graph was captured in belongs to the graph.

    As in CuPy 14.1 and 14.2, blocks that are in use when the pool is deleted are never freed;
    "leaked blocks" counts them.
    """

    def __init__(self, engine: Engine) -> None:
        self.sealed = False
        self.blocks: list[Any] = []  # weak references to memory that was allocated here
        self._counts = engine.counts

    def free_all_blocks(self) -> None:
        """Free the blocks that are no longer used."""
        self.blocks = [block for block in self.blocks if block() is not None]

    def total_bytes(self) -> int:
        memories = [block() for block in self.blocks]
        return sum(memory.nbytes for memory in memories if memory is not None)

    def __del__(self) -> None:
        if self.blocks:
            self._counts["leaked blocks"] += len(self.blocks)

    def malloc(self, size: int) -> None:
        if self.sealed:
            raise CaptureError("this memory pool belongs to a graph, which would be overwritten")


@contextmanager
def using_allocator(engine: Engine, malloc: Any) -> Iterator[None]:
    """`cupy.cuda.using_allocator`"""
    before, engine.malloc = engine.malloc, malloc
    try:
        yield
    finally:
        engine.malloc = before


NUMBERS = itertools.count(1)


class Stream:
    """The part of `cupy.cuda.Stream` that graphs need."""

    def __init__(self, engine: Engine, non_blocking: bool = False) -> None:
        self.engine, self.non_blocking = engine, non_blocking
        self.ptr = next(NUMBERS) if non_blocking else 0
        self.outside: list[Any] = []

    def __enter__(self) -> Stream:
        self.outside.append(self.engine.stream)
        self.engine.stream = self
        return self

    def __exit__(self, *error: Any) -> None:
        self.engine.stream = self.outside.pop()

    def is_capturing(self) -> bool:
        return self.engine.graph is not None and self.engine.stream is self

    def begin_capture(self) -> None:
        if self.engine.graph is not None:
            raise CaptureError("the stream is capturing already")
        if not self.non_blocking or self.engine.stream is not self:
            raise CaptureError("only the current stream, a non-blocking one, can capture")
        self.engine.graph = []

    def end_capture(self) -> Graph:
        if self.engine.graph is None:
            raise CaptureError("the stream is not capturing")
        graph, self.engine.graph = Graph(self.engine, self.engine.graph), None
        if self.engine.malloc is not None:
            self.engine.malloc.__self__.sealed = True
        return graph

    def synchronize(self) -> None:
        if self.engine.graph is not None:
            raise CaptureError("a capturing stream cannot be waited for")
        self.engine.counts["waits"] += 1
        self.engine.busy.discard(self)


class Graph:
    """`cupy.cuda.Graph`: the recorded operations, on the arrays with which they were captured."""

    def __init__(self, engine: Engine, operations: list[Callable[[], None]]) -> None:
        self.engine, self.operations = engine, operations

    def launch(self, stream: Stream | None = None) -> None:
        self.engine.begin_work()
        self.engine.counts["graph launches"] += 1
        for operation in self.operations:
            operation()
