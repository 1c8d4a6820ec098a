"""The machine and the versions that the figures were measured with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from minigrad.device import Device, cupy, gpu_name

# Packages that are needed besides CuPy and a GPU. The tests need pytest too.
NEEDED = ("numpy", "regex", "safetensors", "threadpoolctl", "tqdm")


def missing_packages() -> list[str]:
    """Those of `NEEDED` that are not installed."""
    return [name for name in NEEDED if version_of(name) is None]


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def facts() -> dict[str, Any]:
    """The machine and the versions."""
    runtime = cupy().cuda.runtime
    return {
        "device": gpu_name(Device("gpu")),
        "date": time.strftime("%Y-%m-%d"),
        "driver": driver(),
        "CUDA of the driver": dotted(runtime.driverGetVersion),
        "CUDA of CuPy": dotted(runtime.runtimeGetVersion),
        "CuPy": cupy().__version__,
        "PyTorch": version_of("torch"),
        "NumPy": numpy.__version__,
        "Python": platform.python_version(),
        "CPU": processor(),
        "system": platform.platform(),
        "sources": sources(),
    }


def sources() -> str:
    """The beginning of a hash of the sources: both packages and these tests."""
    root, total = Path(__file__).parents[3], hashlib.sha256()
    for folder in ("minigrad", "tinyalpaca", "tests/gpu", "tests/benchmarks"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".cu", ".cuh", ".h"):
                total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()[:12]


def dotted(version: Callable[[], int]) -> str | None:
    """A version such as 13000 as "13.0"; None if CUDA does not report one."""
    try:
        number = version()
    except Exception:  # an unknown version must not end the proof
        return None
    return f"{number // 1000}.{number % 1000 // 10}"


def driver() -> str | None:
    """The version of NVIDIA's driver, from `nvidia-smi`."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0]}, {len(names)} threads" if names else platform.machine()


def file_name(device: str) -> str:
    """A device's name in a form for file names, such as "nvidia-h100-80gb-hbm3"."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
