"""Rotary positions: how fast each pair of channels turns from place to place, and the turning.

Pair i of position t turns by t·f_i, f_i = base^(-2i/D) (Su et al., RoFormer, arXiv:2104.09864).
A model that was trained on short texts is made to read longer ones by turning more slowly, and then
trained on a little more. Two ways are known here:

    linear   f_i / factor, for every pair (Chen et al., arXiv:2306.15595)
    llama3   only for pairs that turn so slowly that the first context was less than `low_freq` of
             their turns; those that turn more than `high_freq` times in it stay as they are, and in
             between it goes over from one to the other (Llama 3.1, arXiv:2407.21783)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi
from typing import Any

import numpy as np

from minigrad import Tensor
from minigrad.device import Device
from minigrad.functions import reshape
from minigrad.nn import functional as F
from tinyalpaca.config import ModelConfig


@dataclass(frozen=True)
class Rotation:
    """How positions turn queries and keys; the fields are those of `ModelConfig`, D first."""

    head_size: int
    base: float
    scaling: str
    factor: float
    low_freq: float
    high_freq: float
    context: int

    @classmethod
    def of(cls, config: ModelConfig) -> Rotation | None:
        """What a configuration asks for; None unless its positions are rotary."""
        if config.positions != "rotary":
            return None
        c = config
        how = (c.rope_base, c.rope_scaling, c.rope_factor, c.rope_low_freq, c.rope_high_freq)
        return cls(c.size_of_head, *how, c.rope_context)

    def frequencies(self) -> np.ndarray:
        """f (D/2,) float64, in radians from one position to the next."""
        plain = self.base ** (-np.arange(0, self.head_size, 2) / self.head_size)
        if self.scaling == "linear":
            return plain / self.factor
        if self.scaling == "llama3":
            turns = self.context * plain / (2 * pi)
            kept = np.clip((turns - self.low_freq) / (self.high_freq - self.low_freq), 0, 1)
            return plain * (kept + (1 - kept) / self.factor)
        return plain

    def angles(self, time: int) -> tuple[np.ndarray, np.ndarray]:
        """cos and sin of the angles of positions 0 to T - 1, (T, D/2) each."""
        angles = np.arange(time)[:, None] * self.frequencies()
        return np.cos(angles), np.sin(angles)


def rotated(
    qkv: Tensor,
    rotation: Rotation | None,
    heads: int,
    kv_heads: int,
    places: np.ndarray | None = None,
) -> Tensor:
    """Queries and keys turned by their positions; values stay as they are.

    Args:
        qkv: (B, T, (heads + 2·kv_heads)·D), packed.
        rotation: None for positions that are not rotary; then all stays as it is.
        places: (B, T) the positions; 0 to T - 1 unless given.
    """
    if rotation is None:
        return qkv
    batch, time, channels = qkv.shape
    turned = heads + kv_heads
    # (T, 1, D/2) each; of other places, rows of a table that serves for many tokens
    length = time if places is None else 1 << int(places.max()).bit_length()
    cos, sin = _angles_on(qkv.device, qkv.device.xp, length, rotation, qkv.dtype)
    if places is not None:
        there = qkv.device.asarray(places)
        cos, sin = cos[there], sin[there]  # (B, T, 1, D/2)
    parts = reshape(qkv, (batch, time, turned + kv_heads, -1))
    return reshape(F.rotary(parts, cos, sin, heads=turned), (batch, time, channels))


@lru_cache(maxsize=64)
def _angles_on(
    device: Device, xp: Any, time: int, rotation: Rotation, dtype: Any
) -> tuple[Any, Any]:
    """(T, 1, D/2) arrays on a device, where they stay: a CUDA graph takes nothing from the host.

    `xp` is the device's array library, and here only a part of the key.
    """
    cos, sin = (device.asarray(part.astype(dtype)) for part in rotation.angles(time))
    return cos[:, None], sin[:, None]
