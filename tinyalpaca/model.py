"""TinyAlpaca: a decoder-only transformer (Vaswani et al., arXiv:1706.03762; Radford et al., 2018).

    ids -> token + position embeddings -> decoder layers -> linear -> logits of the next token

B batch, T time (position), C channels (d_model), H heads, D head size, F feed-forward width,
V vocabulary. Class and parameter names are those of the original, so that its weights can be loaded
by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from minigrad import Generator, Tensor, nn
from minigrad.errors import ShapeError
from minigrad.functions import gelu, silu
from minigrad.nn import LoadedKeys
from minigrad.nn import functional as F
from tinyalpaca.block_end import block_end, is_plain, make_norm
from tinyalpaca.chat import ChatTemplate
from tinyalpaca.config import ConfigError, ModelConfig
from tinyalpaca.key_values import KeyValues
from tinyalpaca.parameter_names import with_present_names
from tinyalpaca.rotation import Rotation, rotated


class Embedding(nn.Module):
    """Token embeddings plus, unless positions are rotary, learned position embeddings."""

    def __init__(self, config: ModelConfig, rng: Generator) -> None:
        v, c = config.vocab_size, config.d_model
        self.token_embed: nn.Parameter = nn.Parameter(rng.normal((v, c), std=0.02))  # (V, C)
        self.pos_embed: nn.Parameter | None = None
        if config.positions == "learned":
            self.pos_embed = nn.Parameter(rng.normal((config.max_seq_len, c), std=0.02))  # (T, C)

    def forward(self, ids: Any, places: np.ndarray | None = None) -> Tensor:
        """(B, T) -> (B, T, C), at positions 0 to T - 1 unless `places` (B, T) gives others."""
        if places is None or self.pos_embed is None:
            return F.embedding(self.token_embed, ids, self.pos_embed)  # its first T rows
        there = self.pos_embed.device.asarray(places)
        return F.embedding(self.token_embed, ids) + F.embedding(self.pos_embed, there)


class MaskedMultiHeadSelfAttention(nn.Module):
    """Causal self-attention: a projection to queries, keys and values, and one back."""

    def __init__(self, config: ModelConfig, rng: Generator) -> None:
        c, size = config.d_model, config.size_of_head
        packed = (config.num_heads + 2 * config.kv_heads) * size
        self.qkv_proj: nn.Linear = nn.Linear(c, packed, config.bias or config.qkv_bias, rng=rng)
        self.out_proj: nn.Linear = nn.Linear(config.num_heads * size, c, config.bias, rng=rng)
        self.num_heads: int = config.num_heads
        self.num_kv_heads: int | None = config.num_kv_heads or None  # None: as many
        self.rotation: Rotation | None = Rotation.of(config)

    def forward(self, x: Tensor, cache: KeyValues | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        return self.out_proj(self.heads(x) if cache is None else self.heads(x, cache))

    def heads(self, x: Tensor, cache: KeyValues | None = None) -> Tensor:
        """The outputs of all heads, side by side: (B, T, C) -> (B, T, H·D)"""
        qkv = self.qkv_proj(x)  # (B, T, (H + 2K)·D), K heads of keys and of values
        qkv = self.rotate(qkv, None if cache is None else cache.places)
        if cache is not None:
            mixed = cache.mix(self, qkv, self.num_heads, self.num_kv_heads)
            if mixed is not None:
                return mixed
        return F.multi_head_attention(
            qkv, num_heads=self.num_heads, num_kv_heads=self.num_kv_heads, causal=True
        )

    def rotate(self, qkv: Tensor, places: np.ndarray | None = None) -> Tensor:
        """Rotate queries and keys if positions are rotary: 0 to T - 1, or `places` (B, T)."""
        kv_heads = self.num_kv_heads or self.num_heads
        return rotated(qkv, self.rotation, self.num_heads, kv_heads, places)


class FeedForwardNetwork(nn.Module):
    """Two linear layers with an activation between them, for each position separately.

    With SwiGLU the first layer computes a gate and what the gate multiplies: (B, T, 2F).
    """

    def __init__(self, config: ModelConfig, rng: Generator) -> None:
        width = 2 * config.d_ff if config.activation == "swiglu" else config.d_ff
        self.fc1: nn.Linear = nn.Linear(config.d_model, width, config.bias, rng=rng)
        self.fc2: nn.Linear = nn.Linear(config.d_ff, config.d_model, config.bias, rng=rng)
        self.activation = config.activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        return self.fc2(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, F)"""
        if self.activation == "relu":
            return self.fc1(x, activation="relu")
        if self.activation == "silu":
            return silu(self.fc1(x))
        if self.activation == "swiglu":
            return F.swiglu(self.fc1(x))
        return gelu(self.fc1(x), "tanh" if self.activation == "gelu_tanh" else "none")


class DecoderLayer(nn.Module):
    """Attention, then feed-forward, each with a residual connection and a norm.

    Post-norm, as the original: x = norm(x + block(x)). Pre-norm: x = x + block(norm(x)).
    """

    def __init__(self, config: ModelConfig, rng: Generator) -> None:
        self.multi_head_attention: MaskedMultiHeadSelfAttention = MaskedMultiHeadSelfAttention(
            config, rng
        )
        self.ffn: FeedForwardNetwork = FeedForwardNetwork(config, rng)
        self.layer_norm1: nn.Module = make_norm(config)
        self.layer_norm2: nn.Module = make_norm(config)
        self.dropout: nn.Dropout = nn.Dropout(config.dropout, rng=rng)
        self.pre_norm: bool = config.pre_norm

    def forward(self, x: Tensor, cache: KeyValues | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        more = () if cache is None else (cache,)  # a user's module need not have the argument
        if self.pre_norm:
            x = x + self.dropout(self.multi_head_attention(self.layer_norm1(x), *more))
            return x + self.dropout(self.ffn(self.layer_norm2(x)))
        if x.device.kind == "gpu" and self.ends_are_plain():
            attention, ffn = self.multi_head_attention, self.ffn
            x = block_end(attention.heads(x, *more), attention.out_proj, x, self.layer_norm1)
            return block_end(ffn.hidden(x), ffn.fc2, x, self.layer_norm2)
        x = self.layer_norm1(self.dropout(self.multi_head_attention(x, *more)), x)
        return self.layer_norm2(self.dropout(self.ffn(x)), x)

    def ends_are_plain(self) -> bool:
        """Whether a linear layer comes directly before each residual sum, and no module or method
        has been replaced. Then the end of each block is one op, a single kernel on a GPU."""
        attention, ffn = self.multi_head_attention, self.ffn
        if (type(attention), type(ffn)) != (MaskedMultiHeadSelfAttention, FeedForwardNetwork):
            return False
        return (
            attention.runs_as_defined()
            and ffn.runs_as_defined()
            and is_plain(
                (attention.out_proj, ffn.fc2), (self.layer_norm1, self.layer_norm2), self.dropout
            )
        )


class TinyAlpaca(nn.Module):
    """The language model.

    Args:
        config: sizes and options; `vocab_size` must be given.
        rng: source of the initial weights, and later of dropout masks.

    Attributes:
        seen_tokens: (V,) which tokens were a target in training; None if that is not known.
        end_tokens: tokens that end a text, besides the tokenizer's `<|endoftext|>`.
        chat_template: how conversations are written, if its maker has given one.

    Raises:
        ConfigError: the configuration has no vocabulary size.
        TypeError: `rng` is no generator.
    """

    def __init__(self, config: ModelConfig, rng: Generator) -> None:
        if not hasattr(config, "vocab_size"):
            raise TypeError(f"TinyAlpaca: a {type(config).__name__} is no ModelConfig")
        if config.vocab_size < 1:
            raise ConfigError("vocab_size must be at least 1: take it from the tokenizer")
        if not isinstance(rng, Generator):
            raise TypeError("TinyAlpaca: rng must be a minigrad.Generator(0), where 0 is the seed")
        self.config = config
        self.rng = rng
        self.seen_tokens: np.ndarray | None = None
        self.end_tokens: tuple[int, ...] = ()
        self.chat_template: ChatTemplate | None = None
        self.embedding: Embedding = Embedding(config, rng)
        self.dropout: nn.Dropout = nn.Dropout(config.dropout, rng=rng)
        self.decoder_layers: nn.ModuleList[DecoderLayer] = nn.ModuleList(
            DecoderLayer(config, rng) for _ in range(config.num_layers)
        )
        self.final_norm: nn.Module | None = make_norm(config) if config.pre_norm else None
        self.final_linear: nn.Linear = nn.Linear(
            config.d_model, config.vocab_size, config.bias, rng=rng
        )
        if config.tie_weights:
            self.final_linear.weight = self.embedding.token_embed
        if config.pre_norm:
            self._scale_residual_projections()

    def forward(self, ids: Any, cache: KeyValues | None = None) -> Tensor:
        """Logits of the token after each position.

        Args:
            ids: (B, T) token ids, an array or a tensor.
            cache: keys and values of the tokens before `ids`, to which those of `ids` are added.
                It is for generation, under `no_grad`.

        Returns:
            (B, T, V); with a cache those after the last position, (B, 1, V).

        Raises:
            TypeError: ids is not an array.
            ShapeError: ids does not have two axes, T exceeds `max_seq_len`, or the cache is of
                other sequences or full.
            IndexError: an id is out of range (checked on the CPU).
        """
        if not hasattr(ids, "ndim"):
            raise TypeError("TinyAlpaca: ids are an array, numpy.array([tokenizer.encode(text)])")
        if ids.ndim != 2 or ids.shape[1] == 0:
            least = ", T is at least 1" if ids.ndim == 2 else ""
            raise ShapeError(f"TinyAlpaca: ids must be (B, T), not {ids.shape}{least}")
        if ids.shape[1] > self.config.max_seq_len:
            raise ShapeError(
                f"TinyAlpaca: a sequence of {ids.shape[1]} tokens is longer than max_seq_len "
                f"({self.config.max_seq_len}): shorten it, or make the model with a larger one"
            )
        if cache is None:
            x = self.dropout(self.embedding(ids))  # (B, T, C)
            for layer in self.decoder_layers:
                x = layer(x)
        else:
            x = self._continue(ids, cache)  # (B, 1, C)
        if self.final_norm is not None:
            x = self.final_norm(x)
        return self.final_linear(x)  # (B, T, V)

    def _continue(self, ids: Any, cache: KeyValues) -> Tensor:
        """The last layer's output at the last position, for ids that continue a cache."""
        cache.begin(ids.shape)
        x = self.dropout(self.embedding(ids, cache.places))  # (B, T, C)
        for layer in self.decoder_layers:
            x = layer(x, cache)
        cache.end()
        return x[:, -1:]

    def loss(
        self, ids: Any, targets: Any, *, label_smoothing: float = 0.0, reduction: str = "mean"
    ) -> Tensor:
        """Cross-entropy of `targets` (B, T), the tokens that follow `ids`, in nats."""
        return F.cross_entropy(
            self(ids), targets, label_smoothing=label_smoothing, reduction=reduction
        )

    def load_state_dict(
        self, state: Mapping[str, Any], strict: bool = True, *, assign: bool = False
    ) -> LoadedKeys:
        """As `Module.load_state_dict`. Names of earlier versions are accepted as well."""
        return super().load_state_dict(with_present_names(state), strict, assign=assign)

    def _scale_residual_projections(self) -> None:
        """GPT-2's initialisation for pre-norm: the blocks' outputs start small.

        Each of the 2·num_layers blocks adds to the residual stream. Dividing their last weights by
        √(2·num_layers) makes the stream's initial variance independent of the depth.
        """
        scale = 1 / sqrt(2 * self.config.num_layers)
        for layer in self.decoder_layers:
            for projection in (layer.multi_head_attention.out_proj, layer.ffn.fc2):
                projection.weight.assign(projection.weight.array * scale)

    def extra_repr(self) -> str:
        return f"{self.num_parameters():,} parameters"
