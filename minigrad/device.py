"""Devices: where arrays live and which array library computes on them.

`Device("cpu")` computes with NumPy, `Device("gpu")` with CuPy. minigrad is complete without CuPy;
asking for a GPU that is not there is one clear error that says what to install.
"""

from __future__ import annotations

import functools
import importlib
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from minigrad.errors import DeviceError
from minigrad.installing import install_line


def how_to_install_cupy() -> str:
    """The commands that do it, for both versions of CUDA."""
    return (
        f"{install_line('cuda13')} for CUDA 13, or {install_line('cuda12')} for CUDA 12, "
        "in this project's folder if you have one"
    )


@dataclass(frozen=True)
class Device:
    """A place for arrays.

    Args:
        kind: "cpu" or "gpu" ("cuda", "gpu:1" and "cuda:1" are understood).
        index: which GPU; always 0 on the CPU.
    """

    kind: str
    index: int = 0

    def __init__(self, name: str | Device, index: int | None = None) -> None:
        if isinstance(name, Device):
            kind, number = name.kind, name.index
        else:
            kind, colon, suffix = str(getattr(name, "__name__", name)).partition(":")
            kind = {"cuda": "gpu"}.get(kind, kind)
            if kind not in ("cpu", "gpu") or (colon and not suffix.isdigit()):
                dtype = re.match(r"(torch\.)?(b?float|int|uint|bool|double|half|long)", kind)
                meant = "; a dtype is changed with .astype(dtype)" if dtype else ""
                raise DeviceError(f'unknown device {name!r}: use "cpu", "gpu" or "gpu:1"{meant}')
            number = int(suffix or 0)
            if kind == "cpu" and number:
                raise DeviceError(f'unknown device {name!r}: there is one "cpu"')
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "index", number if index is None else index)

    def __str__(self) -> str:
        return self.kind if self.index == 0 else f"{self.kind}:{self.index}"

    __repr__ = __str__

    @property
    def xp(self) -> Any:
        """The array namespace: `numpy` or `cupy`.

        Raises:
            DeviceError: a GPU is asked for and CuPy or the GPU is missing.
        """
        if self.kind == "cpu":
            return np
        xp = cupy()
        if self.index and self.index >= (count := xp.cuda.runtime.getDeviceCount()):
            raise DeviceError(
                f"there is no device {str(self)!r}: there are {count} GPUs, from 'gpu:0' on"
            )
        return xp

    def in_use(self) -> AbstractContextManager[Any]:
        """Context manager: on a GPU, new arrays are made there and kernels run there.

        Raises:
            DeviceError: CuPy is missing, or there is no such GPU.
        """
        if self.kind == "cpu":
            return nullcontext()
        xp = self.xp
        return xp.cuda.Device(self.index)

    @property
    def is_in_use(self) -> bool:
        """Whether new arrays and kernels go there already."""
        return self.kind == "cpu" or cupy().cuda.Device().id == self.index

    def asarray(self, array: Any) -> Any:
        """`array` on this device: itself if it is there already, a copy otherwise."""
        if self.kind == "cpu":
            return array if isinstance(array, np.ndarray) else _to_host(array)
        with self.in_use():
            return cupy().asarray(array)

    def number(self, value: Any, dtype: Any) -> Any:
        """An array without axes that holds `value`. On a GPU it is filled there, not copied."""
        if self.kind == "cpu":
            return np.asarray(value, dtype)
        with self.in_use():
            return cupy().full((), value, dtype)


CPU = Device("cpu")


@functools.cache
def cupy() -> ModuleType:
    """CuPy, if it is installed and sees a GPU.

    Raises:
        DeviceError: CuPy is not installed, does not load, finds no GPU, or is for another maker's.
    """
    try:
        module = importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceError(
            f"the device 'gpu' needs CuPy, which cannot be imported ({_one_line(error)}): "
            f'{how_to_install_cupy()}; or use the device "cpu"'
        ) from error
    if getattr(module.cuda.runtime, "is_hip", False):
        raise DeviceError(
            f"CuPy {module.__version__} is built for AMD's ROCm, and the kernels here are made for "
            'NVIDIA\'s GPUs and tried on no other: use the device "cpu"'
        )
    try:
        count = module.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise DeviceError(
            f"CuPy {module.__version__} is installed but finds no usable GPU ({_one_line(error)}): "
            "check the NVIDIA driver, and that CuPy fits its CUDA version "
            f'({how_to_install_cupy()}); or use the device "cpu"'
        ) from error
    if count == 0:
        raise DeviceError('CuPy is installed but there is no GPU: use the device "cpu"')
    return module


def _one_line(error: Exception) -> str:
    """The message of an error, without the line breaks of CuPy's long messages."""
    return " ".join(str(error).split())


def gpu_available() -> bool:
    """True if arrays can be put on a GPU."""
    try:
        cupy()
    except DeviceError:
        return False
    return True


def choose_device(name: str) -> Device:
    """The device that `name` asks for; "auto" takes a GPU if there is one.

    Raises:
        DeviceError: a GPU is asked for and there is none; says what to install.
    """
    if name == "auto":
        name = "gpu" if gpu_available() else "cpu"
    device = Device(name)
    _ = device.xp  # a missing CuPy or GPU is an error now, not when it is first used
    return device


def gpu_name(device: Device) -> str:
    """The product name of a GPU, for example "NVIDIA H200"."""
    name = cupy().cuda.runtime.getDeviceProperties(device.index)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def _to_host(array: Any) -> np.ndarray:
    return array.get() if hasattr(array, "get") else np.asarray(array)


def device_of(array: Any) -> Device:
    """The device on which `array` lives."""
    if isinstance(array, np.ndarray):
        return CPU
    return Device("gpu", array.device.id)


def namespace_of(array: Any) -> Any:
    """The array library of `array`: `numpy` or `cupy`."""
    return np if isinstance(array, np.ndarray) else device_of(array).xp


__all__ = [
    "CPU",
    "Device",
    "choose_device",
    "cupy",
    "device_of",
    "gpu_available",
    "gpu_name",
    "namespace_of",
]
