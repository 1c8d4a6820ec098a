"""The older name of `minigrad.storage` for weights, for programs that import it."""

from minigrad.storage import (
    FileFormatError,
    TensorInfo,
    inspect_safetensors,
    load_safetensors,
    load_torch,
    load_torch_checkpoint,
    save_safetensors,
)

__all__ = [
    "FileFormatError",
    "TensorInfo",
    "inspect_safetensors",
    "load_safetensors",
    "load_torch",
    "load_torch_checkpoint",
    "save_safetensors",
]
