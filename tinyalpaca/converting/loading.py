"""A model from whichever folder it is in: one that training wrote, or one of Hugging Face's."""

from __future__ import annotations

import os
from typing import Any

from minigrad.device import Device
from tinyalpaca.console import warn
from tinyalpaca.converting.huggingface import is_huggingface, load_huggingface
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs import Loaded, load_model


def load(
    folder: str | os.PathLike[str],
    device: Device | str = "cpu",
    model: Any = TinyAlpaca,
    *,
    merged: bool = True,
) -> Loaded:
    """As `tinyalpaca.runs.load_model`; takes folders of Hugging Face's as well.

    Those are of GPT-2, Llama, Mistral and Qwen2 models. What is left out of one is said.

    Raises:
        FileNotFoundError: there is no such folder, or a file is missing; says how to make one.
        FileFormatError: a file is damaged, or the model computes what ours does not.
    """
    if model is TinyAlpaca and is_huggingface(folder):
        loaded, tokenizer = load_huggingface(folder, warn)
        return Loaded(loaded.to(device), tokenizer, None)
    return load_model(folder, device, model, merged=merged)
