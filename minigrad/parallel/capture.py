"""A function of device arrays as one CUDA graph: one launch instead of one for each kernel in it.

For a small model a GPU waits for launches, not for arithmetic. A graph is captured once and then
replayed. It reads and writes at fixed addresses, so everything that changes from one replay to the
next (learning rate, step, batch) has to be in device arrays.

The protocol: some calls run eagerly, so that every kernel is compiled and every plan of a matmul is
made. Then the function runs once eagerly and once as a replay from the same state. The graph is
used only if the two agree. Otherwise, or if something in the function cannot be captured, a warning
says so, and further calls run eagerly.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.errors import CaptureWarning
from minigrad.kernels.cuda.scratch import forget_stream

AGREEMENT = 1e-3  # of an array's largest element: CuPy's own sums may use atomics, in any order


class Captured:
    """Calls `function`, from some call on by replaying a CUDA graph of it.

    Each call has the effect of `function()` on the state, and returns its results.

    Args:
        function: has no arguments, reads and writes device arrays, and returns None, an array or
            several. What it does must not depend on the values in arrays.
        state: all arrays that it changes and that live longer than a call.
        label: what it is, for messages.
        enabled: False never captures.
        warm_up: how many calls run eagerly first; at least 1.

    Attributes:
        graph: the graph, or None.
        why_not: why there will be none, or None.

    A result is an array that the next call overwrites: copy what you want to keep. Calls and
    everything that uses the state belong to one stream and one GPU, CuPy's current ones.

    The graph's memory is freed when this object is dropped, or if there is no graph.
    """

    function: Callable[[], Any]
    state: list[Any]
    label: str

    def __init__(
        self,
        function: Callable[[], Any],
        state: Sequence[Any],
        *,
        label: str,
        enabled: bool = True,
        warm_up: int = 2,
    ) -> None:
        self.function, self.state, self.label = function, list(state), label
        self.why_not: str | None = None if enabled else "it is switched off"
        self._left = max(1, warm_up)
        self._memory = GraphMemory()
        weakref.finalize(self, self._memory.release).atexit = False

    @property
    def graph(self) -> Any:
        return self._memory.graph

    @property
    def pool_bytes(self) -> int:
        """The memory that the graph keeps for itself."""
        pool = self._memory.pool
        return 0 if pool is None else pool.total_bytes()

    def __call__(self) -> Any:
        if self._memory.graph is not None:
            self._memory.graph.launch()
            return self._memory.results
        if self._left > 0 or self.why_not is not None:
            self._left -= 1
            return self.function()
        return self._capture()

    def _capture(self) -> Any:
        """Run this call eagerly, then as a replay from the same state. Keep the graph if equal.

        The call has its effect once: that of the eager call if there is no graph in the end.
        """
        cupy().get_default_memory_pool().free_all_blocks()  # what warming up has left there
        before = [array.copy() for array in self.state]
        memory = self._memory
        memory.begin()
        try:
            with self._apart(memory):  # which also fills the pool with the memory needed
                results = self.function()
            after = [array.copy() for array in (*self.state, *_arrays(results))]
            eager = _like(results, after[len(self.state) :])
            results = None  # or the graph could not have its memory
            self._restore(before)
            memory.graph, memory.results = self._record(memory)
            memory.graph.launch()
            differing = _differing(after, [*self.state, *_arrays(memory.results)])
        except Exception as error:
            self._restore(before)
            self._give_up(f"{type(error).__name__}: {error}")
        else:
            if not differing:
                return memory.results
            self._restore(after[: len(self.state)])
            self._give_up(f"a replay differed from an eager run in {differing}")
            memory.release()
            return eager
        memory.release()
        return self.function()

    def _record(self, memory: GraphMemory) -> tuple[Any, Any]:
        """The graph of a call, and the arrays that it leaves its results in."""
        with self._apart(memory):
            memory.stream.begin_capture()
            try:
                results = self.function()
            except BaseException:
                with suppress(Exception):  # the first error is the one to tell
                    memory.stream.end_capture()
                raise
            graph = memory.stream.end_capture()
        return graph, results

    @contextmanager
    def _apart(self, memory: GraphMemory) -> Iterator[None]:
        """On a stream and in memory of its own, after all that came before and before all after,
        even if it fails half-way.

        The collector of cycles stays off: it could free memory of other pools in a capture.
        """
        cuda = cupy().cuda
        collecting = gc.isenabled()
        gc.disable()
        cuda.get_current_stream().synchronize()
        try:
            with memory.stream, cuda.using_allocator(memory.pool.malloc):
                yield
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                memory.stream.synchronize()
            raise
        else:
            memory.stream.synchronize()
        finally:
            if collecting:
                gc.enable()

    def _restore(self, arrays: list[Any]) -> None:
        for array, value in zip(self.state, arrays, strict=True):
            array[...] = value

    def _give_up(self, why: str) -> None:
        self.why_not = why
        warnings.warn(
            f"the {self.label} runs kernel by kernel, without a CUDA graph: {why}",
            CaptureWarning,
            stacklevel=4,
        )


class GraphMemory:
    """What a graph needs while it lives: a stream, a memory pool of its own, results.

    CuPy (14.1 and 14.2) does not free the blocks of a pool that is merely dropped.
    """

    def __init__(self) -> None:
        self.graph: Any = None
        self.results: Any = None
        self.stream: Any = None
        self.pool: Any = None

    def begin(self) -> None:
        """A new stream and a new pool."""
        self.release()
        self._xp = cupy()
        cuda = self._xp.cuda
        self.stream, self.pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        self._device = cuda.Device()

    def release(self) -> None:
        """Free everything, except results that are still in use."""
        stream, pool = self.stream, self.pool
        self.graph = self.results = self.stream = self.pool = None
        if pool is None:
            return
        with self._device:
            current = self._xp.cuda.get_current_stream()
            if not current.is_capturing():
                current.synchronize()  # a replay may still be running
            pool.free_all_blocks()
            forget_stream(self._xp, self._device.id, stream.ptr)


def _arrays(results: Any) -> list[Any]:
    """The arrays that a function has returned: none, one or several."""
    if results is None:
        return []
    return list(results) if isinstance(results, (tuple, list)) else [results]


def _like(results: Any, arrays: list[Any]) -> Any:
    """The arrays, as many as the results are and in the same kind of sequence."""
    if results is None:
        return None
    return type(results)(arrays) if isinstance(results, (tuple, list)) else arrays[0]


def _differing(expected: list[Any], found: list[Any]) -> str:
    """Which arrays differ, in words; "" if none does."""
    words = []
    for number, (a, b) in enumerate(zip(expected, found, strict=True)):
        wanted, got = a.get(), b.get()
        same = np.array_equal(wanted, got, equal_nan=wanted.dtype.kind == "f")
        if not same and wanted.dtype.kind == "f":
            scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
            same = np.allclose(got, wanted, rtol=0, atol=AGREEMENT * scale, equal_nan=True)
        if not same:
            words.append(f"array {number} of its state and results, {wanted.dtype}{wanted.shape}")
    return "; ".join(words)
