"""What a model is and how it is trained: two dataclasses, and the command line made from them.

Every field has a help text, so a setting is written down once: here.
"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


def setting(default: Any, help: str) -> Any:
    """A dataclass field with a default and a help text."""
    return field(default=default, metadata={"help": help})


class ConfigError(ValueError):
    """A setting that makes no sense. The message names it and says what would."""


@dataclass(frozen=True)
class ModelConfig:
    """The sizes and options of a `TinyAlpaca`. The defaults are the original's.

    Raises:
        ConfigError: the sizes do not fit together.
    """

    vocab_size: int = setting(0, "number of tokens; 0 takes it from the tokenizer")
    d_model: int = setting(64, "width of the model: channels at each position")
    d_ff: int = setting(256, "width of the feed-forward network")
    num_heads: int = setting(4, "attention heads; must divide d_model")
    num_layers: int = setting(4, "decoder layers")
    max_seq_len: int = setting(128, "longest sequence, in tokens")
    dropout: float = setting(0.0, "probability with which activations are dropped in training")
    pre_norm: bool = setting(False, "normalise before each block instead of after it")
    norm: Literal["layer", "rms"] = setting("layer", "kind of normalisation")
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = setting(
        "relu", "activation of the feed-forward network"
    )
    tie_weights: bool = setting(False, "use the token embedding as the final layer's weight")
    positions: Literal["learned", "rotary"] = setting("learned", "how positions are told apart")
    bias: bool = setting(True, "biases in linear layers and norms")

    def __post_init__(self) -> None:
        for name in ("d_model", "d_ff", "num_heads", "num_layers", "max_seq_len"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, it is {getattr(self, name)}")
        if self.vocab_size < 0:
            raise ConfigError(f"vocab_size must not be negative, it is {self.vocab_size}")
        if self.d_model % self.num_heads:
            raise ConfigError(
                f"d_model ({self.d_model}) must be divisible by num_heads ({self.num_heads}): each "
                "head gets an equal share of the channels"
            )
        if self.positions == "rotary" and (self.d_model // self.num_heads) % 2:
            raise ConfigError(
                "rotary positions turn pairs of channels: d_model / num_heads must be even, it is "
                f"{self.d_model // self.num_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), it is {self.dropout}")
        _check_choices(self)


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. The defaults are the original's setting.

    Raises:
        ConfigError: a setting is out of range.
    """

    data: str = setting("tinyshakespeare", "text to learn: a name, a file, a folder, or - (stdin)")
    out: str = setting("runs/shakespeare", "folder for everything that the run writes")
    validation_fraction: float = setting(0.1, "share of the characters, at the end, for validation")
    num_merges: int = setting(100, "merges that the tokenizer learns from the training part")
    epochs: int = setting(10, "passes over the training data")
    max_steps: int = setting(0, "stop after this many steps; 0 for no limit")
    batch_size: int = setting(32, "sequences a step")
    seq_len: int = setting(128, "tokens of a training window, one more than are predicted")
    windows: Literal["consecutive", "random"] = setting(
        "consecutive", "cut the text once into windows, or draw them at random places"
    )
    learning_rate: float = setting(3e-4, "peak learning rate of AdamW")
    min_learning_rate: float = setting(0.0, "learning rate at the end of a cosine schedule")
    schedule: Literal["constant", "cosine", "cosine-restarts"] = setting(
        "constant", "learning rate over time; restarts happen at each epoch"
    )
    warmup_steps: int = setting(0, "steps over which the learning rate grows to its peak")
    weight_decay: float = setting(0.01, "AdamW's decay of weights")
    beta1: float = setting(0.9, "AdamW's average of gradients")
    beta2: float = setting(0.999, "AdamW's average of squared gradients")
    grad_clip: float = setting(1.0, "largest norm of all gradients; 0 for no limit")
    label_smoothing: float = setting(0.0, "share of the target spread over all tokens")
    seed: int = setting(0, "of the initial weights, the order of windows, dropout and samples")
    device: Literal["cpu", "gpu", "auto"] = setting("cpu", "where to compute; auto takes a GPU")
    workers: int = setting(0, "CPU processes that share a batch; 0 for one a core")
    micro_batch_size: int = setting(0, "sequences that a worker takes at a time; 0 chooses")
    prompt: str = setting("To be or not to be, that is the question:", "how samples begin")
    sample_tokens: int = setting(200, "tokens of the sample at the end; 0 for none")

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, it is {getattr(self, name)}")
        for name in (
            "max_steps",
            "num_merges",
            "warmup_steps",
            "workers",
            "micro_batch_size",
            "sample_tokens",
            "weight_decay",
            "grad_clip",
            "min_learning_rate",
            "seed",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, it is {getattr(self, name)}")
        if self.seq_len < 2:
            raise ConfigError(
                f"seq_len must be at least 2 (a token and the next), not {self.seq_len}"
            )
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate must be positive, it is {self.learning_rate}")
        for name in ("beta1", "beta2", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), it is {getattr(self, name)}")
        if not 0 < self.validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction must be between 0 and 1, it is {self.validation_fraction}"
            )
        _check_choices(self)


def _check_choices(config: Any) -> None:
    for name, hint in typing.get_type_hints(type(config)).items():
        choices = typing.get_args(hint)
        if choices and getattr(config, name) not in choices:
            raise ConfigError(
                f"{name} must be one of {', '.join(map(repr, choices))}, not "
                f"{getattr(config, name)!r}"
            )


def from_dict(cls: Any, values: Mapping[str, Any]) -> Any:
    """A config from a dictionary, for example one read from JSON.

    Raises:
        ConfigError: an unknown setting, or a value of the wrong type; names it.
    """
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(f"{cls.__name__} has no setting {name!r}; it has {sorted(hints)}")
        choices = typing.get_args(hints[name])
        wanted = type(choices[0]) if choices else hints[name]
        fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
        if not fits and not (wanted is float and type(value) is int):
            raise ConfigError(f"{cls.__name__}: {name} must be {wanted.__name__}, not {value!r}")
    return cls(**values)


def add_arguments(parser: argparse.ArgumentParser, cls: Any, title: str) -> None:
    """Add a flag for each field of a config: `d_model` becomes `--d-model`."""
    group = parser.add_argument_group(title)
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        hint, choices = hints[f.name], typing.get_args(hints[f.name])
        options: dict[str, Any] = {"default": None, "dest": f.name}
        text = f.metadata["help"].replace("%", "%%")
        default = f.default if f.default != "" else "none"
        options["help"] = f"{text} (default: {default})"
        if hint is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif choices:
            options["choices"] = choices
        else:
            options["type"] = hint
            options["metavar"] = {int: "N", float: "X", str: "TEXT"}[hint]
        group.add_argument("--" + f.name.replace("_", "-"), **options)


def from_arguments(cls: Any, args: argparse.Namespace, **defaults: Any) -> Any:
    """A config from parsed flags; `defaults` stand in for flags that were not given."""
    given = {
        f.name: getattr(args, f.name)
        for f in dataclasses.fields(cls)
        if getattr(args, f.name, None) is not None
    }
    return cls(**{**defaults, **given})
