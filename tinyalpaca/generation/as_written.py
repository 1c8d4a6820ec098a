"""Whether a model computes exactly what `tinyalpaca.model` says, so that faster copies may be used.

Generation has faster copies of the forward pass, for folded weights and for one token at a time. If
a user has changed a model's layers, these copies would be wrong, so the model itself is run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from math import prod
from operator import is_
from types import ModuleType
from typing import Any

from minigrad import nn
from minigrad.nn import functional
from tinyalpaca import block_end, lora, rotation
from tinyalpaca import model as written
from tinyalpaca.config import ModelConfig
from tinyalpaca.lora import ADAPTERS, LoRALinear
from tinyalpaca.model import (
    DecoderLayer,
    Embedding,
    FeedForwardNetwork,
    MaskedMultiHeadSelfAttention,
    TinyAlpaca,
)
from tinyalpaca.parameter_names import parameter_shapes
from tinyalpaca.rotation import Rotation

Part = tuple[type[nn.Module], dict[str, Any]]  # a module's class, and its settings
CLASSES = (TinyAlpaca, Embedding, DecoderLayer, MaskedMultiHeadSelfAttention, FeedForwardNetwork)
CLASSES += (nn.Module, nn.Linear, LoRALinear, nn.LayerNorm, nn.RMSNorm, nn.Dropout)  # type: ignore[assignment]
# The modules whose functions the model's methods call.
FILES = (written, block_end, rotation, lora, functional, sys.modules[nn.Linear.__module__])
METHODS: dict[Any, dict[str, Any]] = {
    owner: {n: v for n, v in vars(owner).items() if callable(v) or isinstance(v, ModuleType)}
    for owner in (*CLASSES, nn.ModuleList, *FILES)
}


class Structure:
    """A snapshot of a model's modules and parameters, to find out quickly whether they changed.

    Attributes:
        model: the model.
        modules: all its modules.
        parameters: their parameters; a shared one is listed once for each module that has it.
    """

    model: nn.Module
    modules: list[nn.Module]

    def __init__(self, model: nn.Module) -> None:
        by_path = dict(model.named_modules())
        self.model, self.modules = model, list(by_path.values())
        self._seen = [(m, type(m), [*vars(m)], [*vars(m).values()]) for m in self.modules]
        held = [value for *_, values in self._seen for value in values]
        self.parameters: list[nn.Parameter] = [
            value for value in held if isinstance(value, nn.Parameter)
        ]
        self._why_not = why_not_as_written(by_path)

    def still_holds(self) -> bool:
        """Whether every module still has the same class and the same objects as attributes."""
        return all(
            type(module) is kind
            and [*vars(module)] == names
            and all(map(is_, [*vars(module).values()], values))  # listed: threads may add to it
            for module, kind, names, values in self._seen
        )

    def why_not(self) -> str | None:
        """None if the model computes what `tinyalpaca.model` says, else the reason."""
        return self._why_not or _why_not_its_methods()


def why_not_as_written(modules: Mapping[str, nn.Module]) -> str | None:
    """None if a model is exactly the `TinyAlpaca` of its configuration, else the reason.

    Args:
        modules: `model.named_modules()`, with the model itself.
    """
    model = modules[""]
    if type(model) is not TinyAlpaca:
        return f"the model is a {type(model).__name__}, not a {TinyAlpaca.__name__}"
    parts = _parts(model.config)
    if odd := sorted(parts.keys() ^ modules.keys()):
        there = "has the part" if odd[0] in modules else "lacks the part"
        return f"the model {there} {odd[0]!r}, against its configuration"
    for path, module in modules.items():
        kind, settings = parts[path]
        name = path or "the model"
        adapted = kind is nn.Linear and type(module) is LoRALinear  # folding merges it
        if type(module) is not kind and not adapted:
            return f"{name} is a {type(module).__name__}, not a {kind.__name__}"
        if not module.runs_as_defined():
            return f"{name} has hooks, or methods of its own"
        for setting, value in settings.items():
            if getattr(module, setting) != value:
                return f"{name} has {setting} {getattr(module, setting)!r}, not {value!r}"
    return None


def _why_not_its_methods() -> str | None:
    """None if no method, and no function that the methods call, was replaced; else the reason."""
    for owner, methods in METHODS.items():
        now = map(vars(owner).get, methods)
        if not all(map(is_, now, methods.values())):
            odd = [name for name, method in methods.items() if vars(owner).get(name) is not method]
            return f"{owner.__name__}.{odd[0]} was replaced"
    return None


def why_not_folded(config: ModelConfig) -> str | None:
    """None if the copies of the forward pass support a model of this kind, else the reason."""
    unknown = {
        f"num_kv_heads = {config.num_kv_heads}": config.kv_heads != config.num_heads,
        f"head_size = {config.head_size}": config.size_of_head * config.num_heads != config.d_model,
        f"activation = {config.activation!r}": config.activation == "swiglu",
    }
    found = [setting for setting, differs in unknown.items() if differs]
    return f"they know nothing of {', '.join(found)}" if found else None


def why_not_these_weights(model: TinyAlpaca) -> str | None:
    """None if the parameters are those of the configuration and of one dtype, else the reason."""
    found = {name: p.shape for name, p in model.named_parameters() if not name.endswith(ADAPTERS)}
    wanted = dict(parameter_shapes(model.config))
    if model.final_linear.weight is model.embedding.token_embed:
        wanted.pop("final_linear.weight")
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            return f"{name} has the shape {found.get(name)}, not {wanted.get(name)}"
    dtypes = sorted({str(p.dtype) for p in model.parameters()})
    return f"its weights have the dtypes {', '.join(dtypes)}" if len(dtypes) > 1 else None


@lru_cache(maxsize=16)
def _parts(config: ModelConfig) -> dict[str, Part]:
    return dict(_describe(config))


def _describe(config: ModelConfig) -> Iterator[tuple[str, Part]]:
    """Every module of `TinyAlpaca(config)` by its path."""
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    norm: Part = (kind, {"eps": config.norm_eps})
    linear: Part = (nn.Linear, {})
    yield "", (TinyAlpaca, {})
    yield "embedding", (Embedding, {})
    yield "dropout", (nn.Dropout, {})
    yield "decoder_layers", (nn.ModuleList, {})
    for number in range(config.num_layers):
        layer = f"decoder_layers.{number}"
        attention, ffn = f"{layer}.multi_head_attention", f"{layer}.ffn"
        yield layer, (DecoderLayer, {"pre_norm": config.pre_norm})
        heads: dict[str, Any] = {
            "num_heads": config.num_heads,
            "num_kv_heads": config.num_kv_heads or None,
        }
        heads["rotation"] = Rotation.of(config)
        yield attention, (MaskedMultiHeadSelfAttention, heads)
        yield f"{attention}.qkv_proj", linear
        yield f"{attention}.out_proj", linear
        yield ffn, (FeedForwardNetwork, {"activation": config.activation})
        yield f"{ffn}.fc1", linear
        yield f"{ffn}.fc2", linear
        yield f"{layer}.layer_norm1", norm
        yield f"{layer}.layer_norm2", norm
        yield f"{layer}.dropout", (nn.Dropout, {})
    if config.pre_norm:
        yield "final_norm", norm
    yield "final_linear", linear


@lru_cache(maxsize=16)
def largest_size(config: ModelConfig) -> int:
    """The number of elements of the largest parameter of `TinyAlpaca(config)`."""
    return max(prod(shape) for _, shape in parameter_shapes(config))
