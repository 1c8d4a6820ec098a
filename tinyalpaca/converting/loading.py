"""Loads a model from any supported folder: one that training wrote, or one from Hugging Face."""

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
    """Like `tinyalpaca.runs.load_model`, but also reads folders from Hugging Face.

    Those hold GPT-2, Llama, Mistral or Qwen2 models. A message says if something is left out.

    Raises:
        FileNotFoundError: there is no such folder, or a file is missing; says how to make one.
        FileFormatError: a file is damaged, or the model computes something that ours does not.
    """
    if model is TinyAlpaca and is_huggingface(folder):
        loaded, tokenizer = load_huggingface(folder, warn)
        return Loaded(loaded.to(device), tokenizer, None)
    return load_model(folder, device, model, merged=merged)
