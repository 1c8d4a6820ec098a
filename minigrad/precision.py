"""The precision of matmuls of float32 arrays on a GPU.

- `"fp32"`: operands and sums in float32.
- `"tf32"`: tensor cores round the operands to TF32 (10 bits of mantissa, the exponents of float32)
  and add in float32.
- `"bf16"`: tensor cores round the operands to bfloat16 (7 bits of mantissa, the same exponents) and
  add in float32.

Arrays always stay float32: weights, gradients and the optimizer's state lose nothing. The setting
applies to linear layers and attention, forward and backward. It does not apply to float64, nor on
the CPU: those matmuls are always computed in their own dtype.

    minigrad.set_precision("fp32")      # in all threads
    with precision("bf16"):             # in this thread, whatever the line above says
        loss = model(tokens)

By default a GPU that has TF32 (compute capability 8.0 and above) uses it, others use fp32. The
backward pass of a matmul has the precision of its forward pass.
"""

from __future__ import annotations

import functools
from typing import Any

from minigrad.device import Device, cupy
from minigrad.errors import PrecisionError
from minigrad.settings import Setting
from minigrad.state import STATE, setting

# What each needs of a GPU: its compute capability times 10.
PRECISIONS = {"fp32": 0, "tf32": 80, "bf16": 80}


class Default:
    """The precision outside of blocks; None is each device's own choice."""

    name: str | None = None


def precision(name: str | None) -> Setting:
    """Context manager (and decorator): the precision of matmuls in this thread.

    Args:
        name: "fp32", "tf32" or "bf16"; None for the precision outside of this block.

    Raises:
        PrecisionError: there is no such precision. If the device does not have it, the first matmul
            raises an error, or `check_precision`.
    """
    return setting(precision=_known(name))


def set_precision(name: str | None) -> None:
    """Set the precision of matmuls in all threads, outside of blocks of `precision`.

    Args:
        name: "fp32", "tf32" or "bf16"; None for tf32 where a device has it, fp32 elsewhere.

    Raises:
        PrecisionError: there is no such precision.
    """
    Default.name = _known(name)


def get_precision(device: Device | str = "gpu") -> str:
    """The precision of matmuls of float32 on `device`, in this thread.

    Raises:
        PrecisionError: the device does not have the one that is set.
        DeviceError: the device is not there.
    """
    device = Device(device)
    if device.kind == "cpu":
        return "fp32"
    return precision_on_gpu(device.index)


def supported_precisions(device: Device | str = "gpu") -> tuple[str, ...]:
    """The precisions of `device`, the most exact first.

    Raises:
        DeviceError: the device is not there.
    """
    device = Device(device)
    if device.kind == "cpu":
        return ("fp32",)
    capability = capability_of(cupy(), device.index)
    return tuple(name for name, needed in PRECISIONS.items() if capability >= needed)


def check_precision(name: str, device: Device | str = "gpu") -> None:
    """Raise unless `device` can compute matmuls in this precision.

    Raises:
        PrecisionError: it cannot, or there is no such precision.
        DeviceError: the device is not there.
    """
    device = Device(device)
    if _known(name) not in supported_precisions(device):
        if device.kind == "cpu":
            raise PrecisionError(f'products on the CPU are always "fp32"; {name!r} needs a GPU')
        raise _lacking(name, device.index)


def precision_on_gpu(index: int) -> str:
    """The precision on one GPU, after a check that the GPU has it."""
    name = STATE.precision or Default.name
    capability = capability_of(cupy(), index)
    if name is None:
        return "tf32" if capability >= PRECISIONS["tf32"] else "fp32"
    if capability < PRECISIONS[name]:
        raise _lacking(name, index)
    return name


@functools.cache
def capability_of(xp: Any, index: int) -> int:
    """The compute capability of a GPU times 10: 90 for 9.0."""
    return int(xp.cuda.Device(index).compute_capability)


def _known(name: str | None) -> str | None:
    if name is not None and name not in PRECISIONS:
        known = ", ".join(map(repr, PRECISIONS))
        raise PrecisionError(f"there is no precision {name!r}: choose from {known}")
    return name


def _lacking(name: str, index: int) -> PrecisionError:
    needed, found = PRECISIONS[name], capability_of(cupy(), index)
    return PrecisionError(
        f"matmuls in {name} need a GPU of compute capability {needed // 10}.{needed % 10}, and "
        f'GPU {index} has {found // 10}.{found % 10}: use "fp32" there'
    )


__all__ = [
    "PRECISIONS",
    "check_precision",
    "get_precision",
    "precision",
    "set_precision",
    "supported_precisions",
]
