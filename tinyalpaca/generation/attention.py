"""Where a model looks: the attention weights of every layer and head on a text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import sqrt
from typing import Any

import numpy as np

from minigrad import Tensor, no_grad
from tinyalpaca.generation.uncached import home_of
from tinyalpaca.model import MaskedMultiHeadSelfAttention, TinyAlpaca


@contextmanager
def watch_attention(model: TinyAlpaca) -> Iterator[list[np.ndarray]]:
    """Inside, a call of the model on (1, T) ids leaves the attention weights of each layer.

    The layers run as they always do; the weights, which they do not keep, are worked out from each
    layer's input. Layers of other kinds than the model's own are passed over.

    Returns:
        A list, which a call fills with arrays (H, T, T), float64: in [h, t, s], how much position t
        looks at position s. Rows sum to 1 and are 0 after the diagonal.
    """
    maps: list[np.ndarray] = []

    def keep(attention: Any, args: tuple[Any, ...], _: Any) -> None:
        qkv = attention.qkv_proj(args[0])  # (1, T, 3C)
        maps.append(
            _weights(attention.rotate(qkv) if attention.rotary else qkv, attention.num_heads)
        )

    with ExitStack() as stack:
        for module in model.modules():
            if type(module) is MaskedMultiHeadSelfAttention:
                stack.callback(module.register_forward_hook(keep))
        yield maps


def attention_maps(model: TinyAlpaca, ids: np.ndarray) -> np.ndarray:
    """Attention weights: in [l, h, t, s], how much position t looks at position s.

    Args:
        model: in evaluation mode.
        ids: (T,) token ids, at most `max_seq_len`.

    Returns:
        (L, H, T, T) float64; rows sum to 1 and are 0 after the diagonal.
    """
    with no_grad(), watch_attention(model) as maps:
        model(home_of(model).asarray(ids[None]))
    return np.stack(maps)


def _weights(qkv: Tensor, num_heads: int) -> np.ndarray:
    """softmax(q kᵀ/√D) under the causal mask, (H, T, T), from packed (1, T, 3C)."""
    packed = qkv.numpy()[0].astype(np.float64)
    time, channels = packed.shape
    size = channels // (3 * num_heads)
    q, k, _ = packed.reshape(time, 3, num_heads, size).transpose(1, 2, 0, 3)  # (H, T, D) each
    scores = q @ k.transpose(0, 2, 1) / sqrt(size)  # (H, T, T)
    scores = np.where(np.tri(time, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
