"""Rotary positions: each pair of channels is rotated by an angle that grows with the position.

Pair i at position t is rotated by t·f_i, f_i = base^(-2i/D) (Su et al., RoFormer,
arXiv:2104.09864). For texts longer than a model was trained on, the rotation is slowed down, and
the model is trained a little more. There are two ways:

    linear   f_i / factor, for every pair (Chen et al., arXiv:2306.15595)
    llama3   f_i / factor for pairs that make less than `low_freq` turns within the first context;
             f_i for those that make more than `high_freq` turns; in between a mixture of both
             (Llama 3.1, arXiv:2407.21783)
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
    """How positions rotate queries and keys; the fields are those of `ModelConfig`, D first."""

    head_size: int
    base: float
    scaling: str
    factor: float
    low_freq: float
    high_freq: float
    context: int

    @classmethod
    def of(cls, config: ModelConfig) -> Rotation | None:
        """The rotation of a configuration; None unless its positions are rotary."""
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
    """Rotate queries and keys by their positions; values stay as they are.

    Args:
        qkv: (B, T, (heads + 2·kv_heads)·D), packed.
        rotation: None if positions are not rotary; then nothing is rotated.
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
    """(T, 1, D/2) arrays on a device, kept there because a CUDA graph cannot copy from the CPU.

    `xp` is the device's array library, here only a part of the cache's key.
    """
    cos, sin = (device.asarray(part.astype(dtype)) for part in rotation.angles(time))
    return cos[:, None], sin[:, None]
