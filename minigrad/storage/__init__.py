"""Files: weights by name, in safetensors or from PyTorch's archives, and atomic writes.

    tensors, metadata = load_safetensors("model.safetensors")
    save_safetensors(tensors, "half.safetensors", {"step": "100"}, dtype="bfloat16")
    tensors = load_torch("model.pth")  # PyTorch is not needed, and nothing in the file is executed
    everything = load_torch_checkpoint("checkpoint.pt")  # with the states of schedulers, settings
    write_text_atomically("config.json", text)  # always the whole old file or the whole new one

All arrays are NumPy's. Nothing here ever unpickles.
"""

from minigrad.storage.files import (
    FileFormatError,
    atomic_write,
    is_special,
    own_folder,
    refuse_link,
    remove_link,
    sync_directory,
    write_bytes_atomically,
    write_text_atomically,
)
from minigrad.storage.safetensors_file import (
    TensorInfo,
    inspect_safetensors,
    load_safetensors,
    save_safetensors,
)
from minigrad.storage.torch_file import load_torch, load_torch_checkpoint

__all__ = [
    "FileFormatError",
    "TensorInfo",
    "atomic_write",
    "inspect_safetensors",
    "is_special",
    "load_safetensors",
    "load_torch",
    "load_torch_checkpoint",
    "own_folder",
    "refuse_link",
    "remove_link",
    "save_safetensors",
    "sync_directory",
    "write_bytes_atomically",
    "write_text_atomically",
]
