"""LoRA: fine-tuning of a few added parameters, while the model's own stay as they are.

A linear layer y = x Wᵀ + b becomes

    y = x Wᵀ + b + (α/r)·(x Aᵀ) Bᵀ        A (r, in), B (out, r)

of which only A and B are trained. B begins at 0, so that nothing changes at first. After training,
the product is added to W, and the model is as fast as before. Hu et al., "LoRA: Low-Rank Adaptation
of Large Language Models", 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from minigrad import Generator, Tensor, nn
from minigrad.nn import functional as F
from tinyalpaca.settings import ConfigError

ADAPTERS = (".lora_a", ".lora_b")  # how the names of the added parameters end


class LoRA(NamedTuple):
    """Where a model's adapters are, as a checkpoint saves it.

    Attributes:
        rank: r.
        alpha: α.
        layers: patterns of the adapted layers' names, separated by commas.
        base: the folder with the model that they were added to; "" if it is in no folder.
        base_sha256: of its weights.
    """

    rank: int
    alpha: float
    layers: str
    base: str = ""
    base_sha256: str = ""


class LoRALinear(nn.Module):
    """A linear layer and its adapter.

    Args:
        linear: its parameters are shared.
        rank: r.
        alpha: α.
        rng: source of A, which is drawn from ±1/√in.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, rng: Generator) -> None:
        out_features, in_features = linear.weight.shape
        bound = 1 / sqrt(in_features)
        self.weight, self.bias = linear.weight, linear.bias
        dtype = linear.weight.dtype
        self.lora_a: nn.Parameter = nn.Parameter(
            rng.uniform((rank, in_features), -bound, bound, dtype)
        )
        self.lora_b: nn.Parameter = nn.Parameter(np.zeros((out_features, rank), dtype))
        self.scale: float = alpha / rank

    def forward(self, x: Tensor, activation: str | None = None) -> Tensor:
        """(..., in) -> (..., out)"""
        y = F.linear(x, self.weight, self.bias)
        y = y + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale
        return F.relu(y) if activation == "relu" else y

    def merged(self) -> nn.Linear:
        """One linear layer that does the same."""
        out_features, in_features = self.weight.shape
        bias = self.bias is not None
        linear = nn.Linear(in_features, out_features, bias, rng=Generator(0))
        change = self.lora_b.array @ self.lora_a.array * self.scale  # (out, in)
        linear.weight = nn.Parameter(self.weight.array + change)
        linear.bias = self.bias
        return linear


def add_adapters(model: Any, lora: LoRA, rng: Generator) -> None:
    """Add adapters to the linear layers whose names match, and freeze all other parameters.

    Raises:
        ConfigError: the rank is less than 1, or no layer matches.
    """
    if lora.rank < 1:
        raise ConfigError(f"the rank of adapters must be at least 1, it is {lora.rank}")
    patterns = [part.strip() for part in lora.layers.split(",")]
    modules = dict(model.named_modules())
    linears = {name: m for name, m in modules.items() if type(m) is nn.Linear}
    chosen = [n for n in linears if any(fnmatchcase(n, pattern) for pattern in patterns)]
    if not chosen:
        shown = ", ".join(list(linears)[:8])
        raise ConfigError(f"--lora-layers {lora.layers!r} matches none of: {shown}, ...")
    if "final_linear" in chosen and getattr(model.config, "tie_weights", False):
        raise ConfigError("the final layer has the embedding's weights, and takes no adapter")
    model.requires_grad_(False)
    for name in chosen:
        _put(modules, name, LoRALinear(linears[name], lora.rank, lora.alpha, rng))
    model.lora = lora


def merge(model: Any) -> None:
    """Merge a model's adapters into its weights, all of which can be trained again."""
    modules = dict(model.named_modules())
    for name, layer in modules.items():
        if type(layer) is LoRALinear:
            _put(modules, name, layer.merged())
    model.requires_grad_(True)
    model.lora = None


def weights_to_save(model: Any) -> dict[str, np.ndarray]:
    """The weights that a checkpoint keeps: the adapters, if there are any, else all."""
    state = model.state_dict()
    if getattr(model, "lora", None) is None:
        return state
    return {name: value for name, value in state.items() if name.endswith(ADAPTERS)}


def load_weights(model: Any, weights: Mapping[str, Any], *, assign: bool = False) -> None:
    """Load what `weights_to_save` gave into a model.

    Args:
        assign: as in `Module.load_state_dict`.

    Raises:
        ValueError: it does not fit.
    """
    if getattr(model, "lora", None) is None:
        model.load_state_dict(weights, **({"assign": True} if assign else {}))
        return
    wanted, found = set(weights_to_save(model)), set(weights)
    if wanted != found:
        raise ValueError(f"these are other adapters: {sorted(wanted ^ found)}")
    model.load_state_dict(weights, strict=False)


def _put(modules: Mapping[str, nn.Module], name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(modules[parent], own, layer)
