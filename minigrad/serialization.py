"""Weights in and out, by name: safetensors, and the state dicts of PyTorch.

    tensors, metadata = load_safetensors("model.safetensors")
    save_safetensors(tensors, "half.safetensors", {"step": "100"}, dtype="bfloat16")
    tensors = load_torch("model.pth")  # PyTorch is not needed, and nothing in the file is executed
    everything = load_torch_checkpoint("checkpoint.pt")  # with the states of schedulers, settings

All of this is on NumPy arrays. Nothing here, and nothing that it calls, ever unpickles.
"""

from minigrad.files import (
    FileFormatError,
    atomic_write,
    sync_directory,
    write_bytes_atomically,
    write_text_atomically,
)
from minigrad.safetensors_file import (
    TensorInfo,
    inspect_safetensors,
    load_safetensors,
    save_safetensors,
)
from minigrad.torch_file import load_torch, load_torch_checkpoint

__all__ = [
    "FileFormatError",
    "TensorInfo",
    "atomic_write",
    "inspect_safetensors",
    "load_safetensors",
    "load_torch",
    "load_torch_checkpoint",
    "save_safetensors",
    "sync_directory",
    "write_bytes_atomically",
    "write_text_atomically",
]
