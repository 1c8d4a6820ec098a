"""NVRTC, the compiler that CuPy uses, without CuPy, a GPU or a driver."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from minigrad.kernels.cuda.compile import OPTIONS, Source
from minigrad.storage import write_text_atomically


class CompileError(RuntimeError):
    """NVRTC rejects a source. The message is its log."""


@cache
def library(major: int) -> Any | None:
    """NVRTC of a CUDA version, from the package that pip installs; None if it is not there."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for path in sorted(Path(folder).rglob(f"libnvrtc.so.{major}")):
            for part in sorted(path.parent.glob(f"libnvrtc-builtins.so.{major}*")):
                ctypes.CDLL(str(part))
            return ctypes.CDLL(str(path))
    return None


class Program:
    """A compiled source.

    Args:
        nvrtc: the result of `library`.
        code: complete CUDA source.
        names: the kernels to compile, with template arguments.
        options: options for the compiler.

    Attributes:
        cubin: the machine code.
        log: the compiler's messages.
        symbols: each kernel's name in the machine code.

    Raises:
        CompileError: the source does not compile.
    """

    def __init__(self, nvrtc: Any, code: str, names: Sequence[str], options: Sequence[str]) -> None:
        self._nvrtc, self._program = nvrtc, ctypes.c_void_p()
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        text = code.encode()
        self._call("CreateProgram", ctypes.byref(self._program), text, b"kernels.cu", 0, None, None)
        try:
            for name in names:
                self._call("AddNameExpression", self._program, name.encode())
            flags = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
            status = nvrtc.nvrtcCompileProgram(self._program, len(options), flags)
            self.log = self._bytes("ProgramLog").rstrip(b"\0").decode()
            if status:
                raise CompileError(self.log)
            self.cubin = self._bytes("CUBIN")
            self.symbols = [self._symbol(name) for name in names]
        finally:
            nvrtc.nvrtcDestroyProgram(ctypes.byref(self._program))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._nvrtc, f"nvrtc{name}")(*arguments)
        if status:
            raise RuntimeError(f"nvrtc{name}: {self._nvrtc.nvrtcGetErrorString(status).decode()}")

    def _bytes(self, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", self._program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        self._call(f"Get{what}", self._program, content)
        return content.raw

    def _symbol(self, name: str) -> str:
        lowered = ctypes.c_char_p()
        self._call("GetLoweredName", self._program, name.encode(), ctypes.byref(lowered))
        return (lowered.value or b"").decode()


# CuPy for CUDA 12 supports GPUs from compute capability 7.0 on, for CUDA 13 from 7.5 on.
OLDEST = {12: "sm_70", 13: "sm_75"}


def log(folder: Path, major: int, kernels: Source) -> str:
    """NVRTC's messages about a source, compiled for the oldest GPUs; cached in a folder.

    Raises:
        CompileError: the source does not compile, or the result lacks a kernel.
    """
    options = (*OPTIONS, f"-arch={OLDEST[major]}")
    code, names = kernels.text(), kernels.expressions()
    if major > min(OLDEST):  # kernels of double are compiled by one version only
        names = tuple(name for name in names if "double" not in name)
    key = hashlib.sha256("\n".join([str(major), code, *names, *options]).encode()).hexdigest()
    path = folder / f"{kernels.file}-{key[:24]}.nvrtc"
    if not path.exists():
        program = Program(library(major), code, names, options)
        if len(program.cubin) < 1000 or not all(program.symbols):
            raise CompileError(f"there is no code for the kernels of {kernels.file}.cu")
        write_text_atomically(path, program.log)
    return path.read_text(encoding="utf-8")
