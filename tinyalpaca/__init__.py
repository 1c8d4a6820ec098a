"""A tiny language model on minigrad.

    from tinyalpaca import ModelConfig, TrainConfig, train

    run = train(TrainConfig(data="my_book.txt", out="runs/book", epochs=3), ModelConfig(d_model=32))

The names below are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyalpaca.checkpoint import load_model as load
    from tinyalpaca.checkpoint import save_model as save
    from tinyalpaca.config import ModelConfig, TrainConfig
    from tinyalpaca.generation import Generator
    from tinyalpaca.model import TinyAlpaca
    from tinyalpaca.tokenizer import BPETokenizer, load_tokenizer
    from tinyalpaca.tokenizing.char_tokenizer import CharTokenizer
    from tinyalpaca.training.hooks import Hook
    from tinyalpaca.training.job import train
    from tinyalpaca.training.task import Data

_HOMES = {
    "BPETokenizer": "tinyalpaca.tokenizer",
    "CharTokenizer": "tinyalpaca.tokenizing.char_tokenizer",
    "Data": "tinyalpaca.training.task",
    "Generator": "tinyalpaca.generation",
    "Hook": "tinyalpaca.training.hooks",
    "ModelConfig": "tinyalpaca.config",
    "TinyAlpaca": "tinyalpaca.model",
    "TrainConfig": "tinyalpaca.config",
    "load": "tinyalpaca.checkpoint",
    "load_tokenizer": "tinyalpaca.tokenizer",
    "save": "tinyalpaca.checkpoint",
    "train": "tinyalpaca.training.job",
}
_NAMES_THERE = {"load": "load_model", "save": "save_model"}

__all__ = [
    "BPETokenizer",
    "CharTokenizer",
    "Data",
    "Generator",
    "Hook",
    "ModelConfig",
    "TinyAlpaca",
    "TrainConfig",
    "load",
    "load_tokenizer",
    "save",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), _NAMES_THERE.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
