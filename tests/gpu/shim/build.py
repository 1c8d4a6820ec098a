"""Compiles CUDA source to a shared library for the CPU, with g++ and `cuda_on_cpu.h`."""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wno-sign-compare")
# g++ does not know nvcc's pragmas, and a library need not export all kernels of its file.
FLAGS += ("-Wno-unknown-pragmas", "-Wno-unused-function", "-Werror")

FORWARD, REVERSE = 0, 1  # orders of threads; 2 and more are seeds of random orders


def why_unavailable() -> str | None:
    """Why kernels cannot run on this CPU, or None if they can."""
    if platform.machine() not in ("x86_64", "AMD64") or platform.system() != "Linux":
        return "the shim's threads switch stacks by x86-64 assembly for Linux"
    return None if shutil.which("g++") else "there is no g++ to compile the kernels for the CPU"


class LaunchError(RuntimeError):
    """A kernel broke a rule that the shim checks, or was given wrong arguments."""


class Library:
    """Kernels compiled for the CPU.

    Args:
        code: CUDA source.
        expressions: the kernels to compile, with template arguments: `relu_forward<float>`.
        folder: where libraries are cached, by their content.
    """

    def __init__(self, code: str, expressions: Sequence[str], folder: Path) -> None:
        exports = "\n".join(f"SHIM_EXPORT(k{i}, {e})" for i, e in enumerate(expressions))
        text = f'#include "{HEADER}"\n{code}\n{exports}\n'
        key = hashlib.sha256((text + HEADER.read_text("utf-8") + " ".join(FLAGS)).encode())
        path = folder / f"{key.hexdigest()[:24]}.so"
        if not path.exists():
            source = path.with_suffix(f".{os.getpid()}.cpp")  # others may be building it too
            source.write_text(text, encoding="utf-8")
            built = source.with_suffix(".new")
            command = ["g++", *FLAGS, str(source), "-o", str(built)]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                raise RuntimeError(f"g++ does not compile the kernels:\n{result.stderr[:4000]}")
            built.rename(path)
            source.unlink()
        self._library = ctypes.CDLL(str(path))
        self.kernels = {e: CpuKernel(self._library, f"k{i}", e) for i, e in enumerate(expressions)}


class CpuKernel:
    """One kernel, called like CuPy's raw kernels, with NumPy arrays and typed scalars."""

    def __init__(self, library: ctypes.CDLL, symbol: str, name: str) -> None:
        self.name = name
        self._launch = getattr(library, symbol)
        self._launch.restype = ctypes.c_bool
        text = ctypes.create_string_buffer(1024)
        getattr(library, f"{symbol}_parameters")(text)
        self.parameters = tuple(text.value.decode().split())

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        schedule: int = FORWARD,
        only: Sequence[int] | None = None,
    ) -> None:
        """Run it, or one block of it.

        Raises:
            LaunchError: a GPU would refuse or misread this launch, or the kernel broke a rule.
        """
        grid, block = (tuple(int(n) for n in (*size, 1, 1)[:3]) for size in (grid, block))
        threads = int(np.prod(block))
        if min(grid) < 1 or max(grid[1:]) > 65535 or threads % 32 or not 32 <= threads <= 1024:
            raise LaunchError(f"{self.name}: a grid of {grid} blocks of {block} threads")
        if len(arguments) != len(self.parameters):
            raise LaunchError(
                f"{self.name} takes {len(self.parameters)} arguments, not {len(arguments)}"
            )
        values = [
            self._value(i, argument, code)
            for i, (argument, code) in enumerate(zip(arguments, self.parameters, strict=True))
        ]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
        error = ctypes.create_string_buffer(256)
        numbers = (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block)
        one = None if only is None else (ctypes.c_uint * 3)(*only)
        if not self._launch(*numbers, pointers, schedule, error, one):
            raise LaunchError(f"{self.name}, {error.value.decode()}")

    def _value(self, position: int, argument: Any, code: str) -> Any:
        """The argument as bits for the parameter `code`."""
        if isinstance(argument, np.uint64) and argument == 0 and code.startswith("*"):
            return ctypes.c_void_p(0)
        if isinstance(argument, np.ndarray) and argument.flags.c_contiguous:
            given = "*" + argument.dtype.str[1:]
            if given == code:
                return ctypes.c_void_p(argument.ctypes.data)
        elif isinstance(argument, np.generic):
            given = argument.dtype.str[1:]
            if given == code:
                return np.ctypeslib.as_ctypes_type(argument.dtype)(argument.item())
        else:
            given = type(argument).__name__
        raise LaunchError(f"{self.name}: argument {position} is {given}, the kernel takes {code}")


@functools.cache
def kernel_names(code: str) -> tuple[str, ...]:
    """The names of the kernels in a source, without template arguments."""
    return tuple(
        re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(", code)
    )
