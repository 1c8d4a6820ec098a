"""The attention weights of every layer and head on a text."""

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
    """Context manager: a call of the model on (1, T) ids records each layer's attention weights.

    The layers run as usual. Since they do not keep the weights, these are computed again from each
    layer's input. Attention layers of other classes than the model's own are skipped.

    Returns:
        A list, which a call fills with arrays (H, T, T), float64. Element [h, t, s] is the weight
        of position s for position t. Rows sum to 1 and are 0 after the diagonal.
    """
    maps: list[np.ndarray] = []

    def keep(attention: Any, args: tuple[Any, ...], _: Any) -> None:
        qkv = attention.qkv_proj(args[0])  # (1, T, (H + 2K)·D)
        turned = qkv if attention.rotation is None else attention.rotate(qkv)
        heads = attention.num_heads
        maps.append(_weights(turned, heads, attention.num_kv_heads or heads))

    with ExitStack() as stack:
        for module in model.modules():
            if type(module) is MaskedMultiHeadSelfAttention:
                stack.callback(module.register_forward_hook(keep))
        yield maps


def attention_maps(model: TinyAlpaca, ids: np.ndarray) -> np.ndarray:
    """Attention weights of a text: element [l, h, t, s] is the weight of position s for position t.

    Args:
        model: in evaluation mode.
        ids: (T,) token ids, at most `max_seq_len`.

    Returns:
        (L, H, T, T) float64; rows sum to 1 and are 0 after the diagonal.
    """
    with no_grad(), watch_attention(model) as maps:
        model(home_of(model).asarray(ids[None]))
    return np.stack(maps)


def _weights(qkv: Tensor, num_heads: int, num_kv_heads: int) -> np.ndarray:
    """softmax(q kᵀ/√D) under the causal mask, (H, T, T), from packed (1, T, (H + 2K)·D)."""
    packed = qkv.numpy()[0].astype(np.float64)
    time = len(packed)
    heads = packed.reshape(time, num_heads + 2 * num_kv_heads, -1).swapaxes(0, 1)  # (H + 2K, T, D)
    k = heads[num_heads : num_heads + num_kv_heads, None]  # (K, 1, T, D)
    q = heads[:num_heads].reshape(num_kv_heads, -1, *k.shape[2:])  # (K, H/K, T, D)
    scores = (q @ k.swapaxes(-1, -2)).reshape(num_heads, time, time) / sqrt(q.shape[-1])
    scores = np.where(np.tri(time, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
