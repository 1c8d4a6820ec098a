"""The names and shapes of a model's parameters: those of now, and those that files had before."""

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

    A configuration may be a stranger's, and ask for more memory than there is.
    """
    c, f, v = config.d_model, config.d_ff, config.vocab_size

    def linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (outputs, inputs)
        if config.bias:
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
        yield from linear(f"{layer}.multi_head_attention.qkv_proj", c, 3 * c)
        yield from linear(f"{layer}.multi_head_attention.out_proj", c, c)
        yield from linear(f"{layer}.ffn.fc1", c, f)
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
    """What belongs to parameters, by their present names. What is given by both keeps both."""
    now = {name: present_name(name) for name in named}
    return {name if now[name] in named else now[name]: value for name, value in named.items()}
