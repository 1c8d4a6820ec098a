"""A model's weights folded together for generation: fewer and larger matmuls.

With x̂ = (x - mean)/std, a norm's gain g and shift β, and Linear's W and b,

    Linear(LayerNorm(x)) = (x̂·g + β)Wᵀ + b = x̂·(g·Wᵀ) + (βWᵀ + b),

so gains and shifts are multiplied into the next matrix. Biases become one more row of it, which is
multiplied by a constant 1. Subtracting the mean is a linear map, so it is applied to the columns of
the matrices that produce x. All that remains of a norm is the division by √(mean(x²) + ε). In a
post-norm model the residual connection adds x̂·g + β. So it becomes rows of the next matrix too:
diag(g), and β as a bias. The scale 1/√D of attention is multiplied into the queries' columns.

Folding is computed in float64 and rounded once, so logits differ from the model's by rounding only.
It is done in main memory, also for a model on a GPU.

C channels, D head size, F feed-forward width, H heads, L longest context, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from minigrad import ops
from minigrad.device import CPU
from tinyalpaca.config import ModelConfig
from tinyalpaca.key_values import KeyValues
from tinyalpaca.lora import LoRALinear
from tinyalpaca.model import DecoderLayer, TinyAlpaca
from tinyalpaca.rotation import Rotation


class Norm(NamedTuple):
    """The rest of a norm: subtract the mean before the division, apply gain and shift after it."""

    gain: Any  # (C,)
    shift: Any  # (C,) or None
    centred: bool


@dataclass(frozen=True)
class Layer:
    """A layer's matrices, which are multiplied by row vectors from the left.

    Folded, the rows are [x̂ (C) | 1 | attention's output (H·D)] and [x̂ (C) | 1 | hidden (F)]. `qkv`
    and `fc1` are applied to [x̂ | 1]. `out` and `fc2` are applied to the whole row in a post-norm
    model, and to [1 | ...] in a pre-norm model, where their result is added to x. There are no
    biases and norms then. Not folded, the rows are x̂, attention's output and hidden alone.
    """

    qkv: Any  # (C + 1, 3C), columns: queries, keys, values, each (H, D)
    out: Any  # (2C + 1, C) or (C + 1, C)
    fc1: Any  # (C + 1, F)
    fc2: Any  # (C + 1 + F, C) or (1 + F, C)
    biases: tuple[Any, Any, Any, Any] = (None, None, None, None)
    norms: tuple[Norm | None, Norm | None] = (None, None)  # before or after: attention's, the ffn's


@dataclass(frozen=True)
class Weights:
    """A model for generation.

    Attributes:
        config: the model's configuration.
        eps: added to the mean square under the root.
        tokens: (V, C), the token embeddings.
        positions: (L, C) embeddings; None if positions are rotary.
        rotation: (L, D/2), e^(iθ) of each position; None if positions are learned. Coordinates i
            and i + D/2 of queries and keys, which are rotated together, are neighbours here:
            together they are a complex number.
        layers: the decoder layers.
        head: (C + 1, V), from [x̂ | 1] to logits; not folded, (C, V).
        folded: whether the weights are folded. If not, there are also:
        head_bias: (V,) or None.
        last_norm: the last norm of a pre-norm model.
    """

    config: ModelConfig
    eps: float
    tokens: Any
    positions: Any
    rotation: Any
    layers: list[Layer]
    head: Any
    folded: bool = True
    head_bias: Any = None
    last_norm: Norm | None = None

    def keys_values(
        self, model: TinyAlpaca, cache: KeyValues, row: int, length: int
    ) -> Iterator[np.ndarray]:
        """For each layer, cached keys and values (2, H, T, D), in the order of the folded weights.

        Args:
            model, cache, row, length: the first `length` positions of sequence `row` in the cache
                that the model itself, not folded, has filled.
        """
        for layer in model.decoder_layers if length else ():
            kept = cache.of(layer.multi_head_attention)[row, :, :, :length]
            if self.rotation is not None:
                kept = np.stack([kept[0][..., rotary_pairs(kept.shape[-1])], kept[1]])
            yield kept

    @property
    def dtype(self) -> np.dtype:
        """The dtype of all arrays but the rotation."""
        return self.head.dtype


def fold(model: TinyAlpaca, vocab_size: int) -> Weights:
    """Fold a copy of the model's weights.

    Args:
        vocab_size: V, of the tokenizer; a model may have more rows, as padding.
    """
    config = model.config
    dtype = model.final_linear.weight.dtype
    layers: list[DecoderLayer] = list(model.decoder_layers)
    centred = config.norm == "layer"
    tokens = _float64(model.embedding.token_embed)[:vocab_size]
    positions = None
    if model.embedding.pos_embed is not None:
        positions = _float64(model.embedding.pos_embed)
    if config.pre_norm and centred:
        tokens = _without_mean(tokens)
        positions = None if positions is None else _without_mean(positions)

    def norm(module: Any) -> tuple[Any, Any]:
        """Gain and shift, (C,) each."""
        gain = _float64(module.weight)
        bias = getattr(module, "bias", None)
        return gain, np.zeros_like(gain) if bias is None else _float64(bias)

    def after(affine: tuple[Any, Any], linear: Any) -> Any:
        """The matrix for [x̂ | 1] of Linear(x̂·gain + shift)."""
        matrix, bias = _linear(linear)
        gain, shift = affine
        return np.concatenate([gain[:, None] * matrix, (shift @ matrix + bias)[None]])

    def into(affine: tuple[Any, Any], linear: Any) -> Any:
        """The matrix for [x̂ | 1 | block] of Linear(block), plus the residual if post-norm."""
        matrix, bias = _linear(linear)
        if config.pre_norm:
            rows = np.concatenate([bias[None], matrix])
        else:
            gain, shift = affine
            rows = np.concatenate([np.diag(gain), (bias + shift)[None], matrix])
        return _without_mean(rows) if centred else rows

    def as_stored(array: Any) -> Any:
        return None if array is None else np.ascontiguousarray(array.astype(dtype))

    columns, scale = qkv_columns(config)
    ones = np.ones(config.d_model)
    affine = (ones, np.zeros_like(ones))  # of the norm before a layer; embeddings have no norm
    folded = []
    for layer in layers:
        first = norm(layer.layer_norm1) if config.pre_norm else affine
        second = norm(layer.layer_norm2 if config.pre_norm else layer.layer_norm1)
        attention, ffn = layer.multi_head_attention, layer.ffn
        folded.append(
            Layer(
                as_stored(after(first, attention.qkv_proj)[:, columns] * scale),
                as_stored(into(first, attention.out_proj)),
                as_stored(after(second, ffn.fc1)),
                as_stored(into(second, ffn.fc2)),
            )
        )
        affine = norm(layer.layer_norm2)
    if model.final_norm is not None:
        affine = norm(model.final_norm)
    head = after(affine, model.final_linear)[:, :vocab_size]
    eps = float(layers[0].layer_norm1.eps)  # type: ignore[attr-defined]
    return Weights(
        config,
        eps,
        as_stored(tokens),
        as_stored(positions),
        rotation_of(config, config.max_seq_len, dtype),
        folded,
        as_stored(head),
    )


def _float64(parameter: Any) -> np.ndarray:
    return CPU.asarray(parameter.array).astype(np.float64)


def _without_mean(rows: Any) -> Any:
    return rows - rows.mean(axis=-1, keepdims=True)


def _linear(linear: Any) -> tuple[Any, Any]:
    """Wᵀ (C_in, C_out) and b (C_out,), with adapters merged."""
    if type(linear) is LoRALinear:
        linear = linear.merged()
    matrix = _float64(linear.weight).T
    if linear.bias is None:
        return matrix, np.zeros(matrix.shape[1])
    return matrix, _float64(linear.bias)


def qkv_columns(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """The order of the columns of queries, keys and values, and a factor for each."""
    heads, size = config.num_heads, config.size_of_head
    turned = heads + config.kv_heads
    columns = np.arange((turned + config.kv_heads) * size).reshape(-1, size)
    if config.positions == "rotary":
        columns[:turned] = columns[:turned, rotary_pairs(size)]
    scale = np.ones(columns.size)
    scale[: heads * size] = 1 / sqrt(size)
    return columns.ravel(), scale


def rotary_pairs(head_size: int) -> np.ndarray:
    """The order in which the coordinates of each rotated pair are adjacent: 0, D/2, 1, ..."""
    return np.arange(head_size).reshape(2, -1).T.ravel()


def activate(hidden: np.ndarray, activation: str) -> None:
    """Apply the activation of `FeedForwardNetwork`, in place."""
    if activation == "relu":
        np.maximum(hidden, 0, out=hidden)
    elif activation == "silu":
        hidden[...] = ops.activations.silu.forward(np, hidden)[0]
    else:
        kind = "tanh" if activation == "gelu_tanh" else "none"
        hidden[...] = ops.activations.gelu.forward(np, hidden, approximate=kind)[0]


def rotation_of(config: ModelConfig, length: int, dtype: Any) -> np.ndarray | None:
    """`Weights.rotation` of positions 0 to `length` - 1."""
    rotation = Rotation.of(config)
    if rotation is None:
        return None
    cos, sin = rotation.angles(length)
    return (cos + 1j * sin).astype(np.complex64 if dtype == np.float32 else np.complex128)
