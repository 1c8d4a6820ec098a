"""Where a model looks: the attention weights of every layer and head on a text."""

from __future__ import annotations

from math import sqrt

import numpy as np

from minigrad import Tensor, no_grad
from tinyalpaca.model import TinyAlpaca


def attention_maps(model: TinyAlpaca, ids: np.ndarray) -> np.ndarray:
    """Attention weights: in [l, h, t, s], how much position t looks at position s.

    The layers run as they always do; the weights, which they do not keep, are worked out beside
    them from each layer's input.

    Args:
        model: in evaluation mode.
        ids: (T,) token ids, at most `max_seq_len`.

    Returns:
        (L, H, T, T) float64; rows sum to 1 and are 0 after the diagonal.
    """
    maps = []
    with no_grad():
        x = model.embedding(model.final_linear.weight.device.asarray(ids[None]))  # (1, T, C)
        for layer in model.decoder_layers:
            attention = layer.multi_head_attention
            qkv = attention.qkv_proj(layer.layer_norm1(x) if layer.pre_norm else x)  # (1, T, 3C)
            if attention.rotary:
                qkv = attention.rotate(qkv)
            maps.append(_weights(qkv, attention.num_heads))
            x = layer(x)
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
