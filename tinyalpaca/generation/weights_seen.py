"""Finds out whether a model's weights have changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad import Tensor
from minigrad.device import Device
from minigrad.version import checksum

SMALL = 1 << 20  # bytes; parameters up to this size are compared with a copy


class WeightsSeen:
    """A record of the parameters of one device, as they are when it is made.

    Engine and optimizers count changes (see `minigrad.version`). If a parameter has the same count,
    and its memory is not used outside of the engine, it has not changed. Otherwise contents are
    compared: small parameters with a copy, which is fastest, large ones by a checksum. On a GPU
    contents are always compared, because replays of a graph are not counted.
    """

    def __init__(self, parameters: Sequence[Tensor], device: Device) -> None:
        self._seen = [(p, p.version, p.version.number) for p in parameters]
        self._contents = contents(parameters, device)

    def still_hold(self, parameters: Sequence[Tensor], device: Device) -> bool:
        """Whether these are the same parameters, with the same values."""
        if len(parameters) != len(self._seen) or not all(
            p is before and p.version is version and p.version.number == number
            for p, (before, version, number) in zip(parameters, self._seen, strict=True)
        ):
            return False
        changeable = device.kind == "gpu" or any(p.version.outside for p in parameters)
        return not changeable or contents(parameters, device) == self._contents


def contents(parameters: Sequence[Tensor], device: Device) -> list[Any]:
    """The bytes or the `minigrad.version.checksum` of each parameter; on a GPU, only checksums."""
    if device.kind == "cpu":
        arrays = [p.array for p in parameters]
        return [a.tobytes() if a.nbytes <= SMALL else checksum(a) for a in arrays]
    with device.in_use():
        sums = device.xp.stack([_on_device(device.xp, p.array) for p in parameters])
        return [int(number) for number in sums.tolist()]  # one copy to the host


def _on_device(xp: Any, array: Any) -> Any:
    """Σᵢ rᵢ·mᵢ modulo 2^64, where mᵢ are the elements' bits as whole numbers.

    The factors rᵢ are odd, so that a change of one element always changes the sum. They look
    random, so that several changes, or swapped elements, cancel only by chance. Before that, upper
    bits are mixed into lower ones, because an even multiple of the highest bit, the sign, would be
    0.
    """
    words = xp.ascontiguousarray(array).reshape(-1).view(f"u{array.dtype.itemsize}")
    words = words.astype(np.uint64)
    words ^= words >> np.uint64(31)
    words *= _odd_factors(xp, words.size)
    return words.sum()


def _odd_factors(xp: Any, count: int) -> Any:
    """Odd numbers of 64 bits that look random: those of splitmix64 (Steele et al., 2014)."""
    z = xp.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31)) | np.uint64(1)
