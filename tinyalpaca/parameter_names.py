"""The names and shapes of a model's parameters, and their names in older files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tinyalpaca.config import ModelConfig

# Before they had the original's names, embeddings were layers with a weight, and files say so.
FORMER_NAMES = {
    "embedding.token_embed.weight": "embedding.token_embed",
    "embedding.pos_embed.weight": "embedding.pos_embed",
}


def parameter_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the parameters of `TinyAlpaca(config)`, without making any.

    A stranger's configuration may ask for more memory than there is.
    """
    c, f, v = config.d_model, config.d_ff, config.vocab_size
    heads, kv_heads, size = config.num_heads, config.kv_heads, config.size_of_head
    hidden = 2 * f if config.activation == "swiglu" else f

    def linear(
        name: str, inputs: int, outputs: int, bias: bool = config.bias
    ) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (outputs, inputs)
        if bias:
            yield f"{name}.bias", (outputs,)

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (c,)
        if config.bias and config.norm == "layer":
            yield f"{name}.bias", (c,)

    yield "embedding.token_embed", (v, c)
    if config.positions == "learned":
        yield "embedding.pos_embed", (config.max_seq_len, c)
    for number in range(config.num_layers):
        layer = f"decoder_layers.{number}"
        attention, packed = f"{layer}.multi_head_attention", (heads + 2 * kv_heads) * size
        yield from linear(f"{attention}.qkv_proj", c, packed, config.bias or config.qkv_bias)
        yield from linear(f"{attention}.out_proj", heads * size, c)
        yield from linear(f"{layer}.ffn.fc1", c, hidden)
        yield from linear(f"{layer}.ffn.fc2", f, c)
        yield from norm(f"{layer}.layer_norm1")
        yield from norm(f"{layer}.layer_norm2")
    if config.pre_norm:
        yield from norm("final_norm")
    yield from linear("final_linear", c, v)


def present_name(name: str) -> str:
    """The name that a parameter has now; also of a kind and a name, "exp_avg/final_linear.bias"."""
    kind, slash, own = name.rpartition("/")
    return kind + slash + FORMER_NAMES.get(own, own)


def with_present_names(named: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the present names of parameters. If both names are given, both are kept."""
    now = {name: present_name(name) for name in named}
    return {name if now[name] in named else now[name]: value for name, value in named.items()}
