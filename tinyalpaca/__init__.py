"""A tiny language model on minigrad.

    from tinyalpaca import ModelConfig, TrainConfig, train

    run = train(TrainConfig(data="my_book.txt", out="runs/book", epochs=3), ModelConfig(d_model=32))

The names below are imported when they are first used.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyalpaca.config import ModelConfig, TrainConfig
    from tinyalpaca.converting.loading import load
    from tinyalpaca.generation import Generator, Sampling
    from tinyalpaca.model import TinyAlpaca
    from tinyalpaca.runs import save_model as save
    from tinyalpaca.tokenizer import BPETokenizer, CharTokenizer, load_tokenizer
    from tinyalpaca.training.hooks import Hook
    from tinyalpaca.training.job import train
    from tinyalpaca.training.task import Data

_HOMES = {
    "BPETokenizer": "tinyalpaca.tokenizer",
    "CharTokenizer": "tinyalpaca.tokenizer",
    "Data": "tinyalpaca.training.task",
    "Generator": "tinyalpaca.generation",
    "Hook": "tinyalpaca.training.hooks",
    "ModelConfig": "tinyalpaca.config",
    "Sampling": "tinyalpaca.generation",
    "TinyAlpaca": "tinyalpaca.model",
    "TrainConfig": "tinyalpaca.config",
    "load": "tinyalpaca.converting.loading",
    "load_tokenizer": "tinyalpaca.tokenizer",
    "save": "tinyalpaca.runs",
    "train": "tinyalpaca.training.job",
}
_NAMES_THERE = {"save": "save_model"}

__all__ = [
    "BPETokenizer",
    "CharTokenizer",
    "Data",
    "Generator",
    "Hook",
    "ModelConfig",
    "Sampling",
    "TinyAlpaca",
    "TrainConfig",
    "load",
    "load_tokenizer",
    "save",
    "train",
]


def _require_own_minigrad() -> None:
    """Raise ImportError if `minigrad` is not the package that was installed with this one.

    Another project on the public index has that name. Beside an editable install it goes first;
    where both lie in one folder, the one that was installed last has written over the other.
    """
    ours = Path(__file__).parents[1] / "minigrad"
    spec = importlib.util.find_spec("minigrad")
    where = None if spec is None or spec.origin is None else Path(spec.origin).parent
    there = where is not None and where.resolve() == ours.resolve()
    if not there or (ours / "nn.py").exists():
        if there:
            cause = f"another project called minigrad has written into {ours}"
        elif where is None:
            cause = f"{ours} is not whole, as after pip has uninstalled another project's minigrad"
        else:
            cause = (
                f"the package minigrad that Python finds ({where}) is not the one that belongs to "
                f"tinyalpaca ({ours}), but another project of that name"
            )
        raise ImportError(
            f"{cause}. To mend it, pip uninstall minigrad, then install this project again: "
            "pip install -e . in its folder, or pip install --force-reinstall tinyalpaca"
        )


_require_own_minigrad()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        public = ", ".join(__all__)
        message = f"module {__name__!r} has no attribute {name!r}; it has {public}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    value = getattr(importlib.import_module(_HOMES[name]), _NAMES_THERE.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
