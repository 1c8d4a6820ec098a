"""Devices: where arrays live and which array library computes on them.

`Device("cpu")` computes with NumPy, `Device("gpu")` with CuPy. minigrad is complete without CuPy;
asking for a GPU that is not there is one clear error that says what to install.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from minigrad.errors import DeviceError

INSTALL_CUPY = 'pip install "minigrad[cuda13]"  (CUDA 13)  or  pip install "minigrad[cuda12]"'


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
            kind, colon, suffix = str(name).partition(":")
            kind = {"cuda": "gpu"}.get(kind, kind)
            if kind not in ("cpu", "gpu") or (colon and not suffix.isdigit()):
                raise DeviceError(f'unknown device {name!r}: use "cpu", "gpu" or "gpu:1"')
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
        return np if self.kind == "cpu" else cupy()

    def asarray(self, array: Any) -> Any:
        """`array` on this device: itself if it is there already, a copy otherwise."""
        if self.kind == "cpu":
            return array if isinstance(array, np.ndarray) else _to_host(array)
        xp = cupy()
        with xp.cuda.Device(self.index):
            return xp.asarray(array)

    def number(self, value: Any, dtype: Any) -> Any:
        """An array without axes that holds `value`. On a GPU it is filled there, not copied."""
        if self.kind == "cpu":
            return np.asarray(value, dtype)
        xp = cupy()
        with xp.cuda.Device(self.index):
            return xp.full((), value, dtype)


CPU = Device("cpu")


@functools.cache
def cupy() -> ModuleType:
    """CuPy, if it is installed and sees a GPU.

    Raises:
        DeviceError: CuPy is not installed, does not load, or finds no GPU.
    """
    try:
        module = importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceError(
            f"the device 'gpu' needs CuPy, which cannot be imported ({error}). Install it with\n"
            f'    {INSTALL_CUPY}\nor use the device "cpu".'
        ) from error
    try:
        count = module.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise DeviceError(
            f"CuPy {module.__version__} is installed but finds no usable GPU ({error}). Check the "
            f"NVIDIA driver, and that the build fits its CUDA version:\n    {INSTALL_CUPY}\n"
            f'or use the device "cpu".'
        ) from error
    if count == 0:
        raise DeviceError('CuPy is installed but there is no GPU. Use the device "cpu".')
    return module


def gpu_available() -> bool:
    """True if arrays can be put on a GPU."""
    try:
        cupy()
    except DeviceError:
        return False
    return True


def gpu_name(device: Device) -> str:
    """What the maker calls a GPU, for example "NVIDIA H200"."""
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
