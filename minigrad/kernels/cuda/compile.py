"""Reads CUDA kernels from the .cu files, compiles them with NVRTC at first use, and launches them.

CuPy keeps compiled kernels on disk (in `~/.cupy/kernel_cache` or `CUPY_CACHE_DIR`), so that only
the first run on a machine waits for the compiler. Each kernel is compiled separately, so that only
kernels that are used are compiled. `compiling_ahead` compiles several at a time.

A kernel's parameters have types in C++, but a launch does not check them: an argument of the wrong
width gives wrong results without an error. Hence one rule for all launches: a Python int is an
`int`, a Python float has the precision of the kernel's arrays, and all other numbers (sizes, seeds)
are passed as NumPy scalars.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from itertools import product
from pkgutil import get_data
from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.state import STATE, setting

OPTIONS = ("--std=c++17",)
REAL = {"f": "float", "d": "double"}
ID = {"i": "int", "l": "long long", "q": "long long"}
IDS = ("int", "long long")
HEADS = (16, 32, 64, 128)  # the head sizes that attention is compiled for
FACTORS = ("Tf32", "Bf16")  # what tensor cores round to
PACKAGE = "minigrad.kernels.cuda"
INCLUDE = r'#include "(\w+)\.cuh"\n'


@cache
def _read(package: str, name: str) -> str:
    """A file as ASCII."""
    data = get_data(package, name)
    assert data is not None, f"{package} is not in a folder"
    return _ascii(data.decode())


def _ascii(text: str) -> str:
    """Replace characters outside ASCII, which only comments have.

    CuPy writes sources in the locale's encoding, which may lack mathematical symbols.
    """
    # Not by question marks: two of them begin a trigraph, and compilers warn about those.
    return re.sub(r"[^\x00-\x7f]", "_", text)


class Source:
    """The kernels of one .cu file, or of a string.

    Args:
        file: the file's name without ending; for `code`, a name for messages.
        templates: every kernel that is launched, such as `relu_forward<{real}>`. `{real}` stands
            for float or double, `{id}` for the type of ids, `{head}` for a head size and
            `{factors}` for the type that tensor cores round to.
        package: the package whose folder has the file and its headers.
        code: CUDA C++ instead of a file. The prelude is put before it.
    """

    file: str
    templates: tuple[str, ...]
    package: str

    def __init__(
        self, file: str, *templates: str, package: str = PACKAGE, code: str | None = None
    ) -> None:
        self.file, self.templates, self.package = file, templates, package
        self._code = None if code is None else _ascii(f'#include "prelude.cuh"\n{code}')
        if code is None:
            SOURCES.append(self)

    def _written(self) -> str:
        return _read(self.package, f"{self.file}.cu") if self._code is None else self._code

    def headers(self) -> dict[str, str]:
        """Name and text of each header that the file includes, in order.

        A header lies in the file's folder or in this one.
        """
        found = {}
        for name in re.findall(INCLUDE, self._written()):
            try:
                text = _read(self.package, f"{name}.cuh")
            except FileNotFoundError:
                text = _read(PACKAGE, f"{name}.cuh")
            found[name] = text.replace("#pragma once\n", "")
        return found

    def body(self) -> str:
        """The text of the file without its `#include` lines.

        Raises:
            ValueError: the prelude is not the first header, or a header is not one of ours.
        """
        text = re.sub(INCLUDE, "", self._written())
        if next(iter(self.headers()), "") != "prelude" or "#include" in text:
            raise ValueError(
                f"{self.file}.cu must include the prelude first, and only headers of kernels"
            )
        return text

    def text(self) -> str:
        """The headers and the kernels: what the compiler gets."""
        return "".join(self.headers().values()) + self.body()

    def expressions(self) -> tuple[str, ...]:
        """Every kernel with every combination of template arguments."""
        found = []
        for choice in product(REAL.values(), IDS, HEADS, FACTORS):
            arguments = dict(zip(("real", "id", "head", "factors"), choice, strict=True))
            found += [template.format(**arguments) for template in self.templates]
        return tuple(dict.fromkeys(found))

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        *arguments: Any,
        dtype: Any = np.float32,
    ) -> None:
        """Run a kernel on the current stream of the GPU that its arrays lie on.

        Args:
            kernel: its name with template arguments.
            grid: the number of blocks along each axis; if one is 0 there is nothing to do.
            block: the number of threads along each axis.
            arguments: C-contiguous device arrays, None for a null pointer, and scalars by the rule
                of this module.
            dtype: the precision of the kernel, and of Python floats among the arguments.

        Raises:
            OverflowError: an int does not fit 32 bits.
            ValueError: the grid is larger than a GPU takes.
        """
        if min(grid) == 0:
            return
        if max(grid[1:], default=0) > 65535:
            raise ValueError(f"{kernel}: {grid} blocks; a GPU takes 65,535 along later axes")
        dtype = np.dtype(dtype)
        with _device_of(arguments):
            if STATE.compiling is not None:
                STATE.compiling(self, kernel)
                return
            function = _function(cupy(), self, kernel)
            function(tuple(grid), tuple(block), tuple([_typed(a, dtype) for a in arguments]))


def _device_of(arguments: Sequence[Any]) -> AbstractContextManager[Any]:
    """Context manager that makes the first array's GPU the current one."""
    xp = cupy()
    first = next((a for a in arguments if isinstance(a, xp.ndarray)), None)
    if first is None or first.device.id == xp.cuda.Device().id:
        return nullcontext()
    return first.device


SOURCES: list[Source] = []  # those of files, for tools that compile every kernel


@cache
def _function(xp: Any, kernels: Source, kernel: str) -> Any:
    """The compiled kernel. NVRTC compiles it at the first call."""
    if kernel not in kernels.expressions():
        raise KeyError(f"{kernel} is not among the kernels of {kernels.file}.cu")
    module = xp.RawModule(code=kernels.text(), options=OPTIONS, name_expressions=(kernel,))
    return module.get_function(kernel)


@contextmanager
def compiling_ahead() -> Iterator[None]:
    """Compile the kernels that the block would launch, several at a time, and launch none of them.

    They are compiled when the block ends. Their output arrays stay uninitialized.
    """
    from concurrent.futures import ThreadPoolExecutor  # imports much that is rarely needed

    xp = cupy()
    jobs: dict[Any, Any] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:

        def compile_it(kernels: Source, kernel: str) -> None:
            key = (kernels, kernel)
            if key not in jobs:
                jobs[key] = pool.submit(_on_device, xp.cuda.Device(), xp, *key)

        with setting(compiling=compile_it):
            yield
        for job in jobs.values():
            job.result()


def _on_device(device: Any, *kernel: Any) -> None:
    with device:
        _function(*kernel)


def _typed(argument: Any, dtype: np.dtype) -> Any:
    """An argument with its width: numbers as NumPy scalars, None as a null pointer."""
    if argument is None:
        return np.uint64(0)
    if isinstance(argument, int):
        return np.int32(argument)
    # `type(...) is float`, because np.float64 is a subclass of float and must keep its width.
    return dtype.type(argument) if type(argument) is float else argument


def real_of(dtype: Any) -> str:
    """The C++ name of a precision.

    Raises:
        TypeError: kernels do not compute in it.
    """
    name = REAL.get(np.dtype(dtype).char)
    if name is None:
        raise TypeError(
            f"the CUDA kernels compute in float32 and float64, not in {np.dtype(dtype)}; under "
            "minigrad.textbook() every dtype of CuPy works"
        )
    return name


def id_of(dtype: Any) -> str:
    """The C++ name of a type of ids.

    Raises:
        TypeError: kernels do not read it.
    """
    name = ID.get(np.dtype(dtype).char)
    if name is None:
        raise TypeError(f"the CUDA kernels read ids of int32 and int64, not of {np.dtype(dtype)}")
    return name


def one_dtype(op: str, *arrays: Any) -> np.dtype:
    """The dtype that all arrays share; None among them is skipped.

    Raises:
        TypeError: they differ.
    """
    dtypes = {array.dtype for array in arrays if array is not None}
    if len(dtypes) > 1:
        names = " and ".join(sorted(str(dtype) for dtype in dtypes))
        raise TypeError(f"{op}: the CUDA kernel needs arrays of one dtype, not {names}")
    return dtypes.pop()


def dense(array: Any) -> Any:
    """`array` C-contiguous: itself if it is, otherwise a copy. None stays None."""
    if array is None or array.flags.c_contiguous:
        return array
    return cupy().ascontiguousarray(array)


def size_of(array: Any) -> np.uint64:
    """The number of elements as a `size_t`."""
    return np.uint64(array.size)


def blocks(size: int, each: int) -> int:
    """How many blocks of `each` cover `size`."""
    return -(-size // each)


def element_blocks(size: int) -> int:
    """Blocks of 256 threads for a pass over `size` elements in which threads may take several."""
    return min(blocks(size, 256), 4096)
