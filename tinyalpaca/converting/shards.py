"""Reads the weights of a folder from Hugging Face, which has one of four forms.

    model.safetensors    model.safetensors.index.json and the shards that it names
    pytorch_model.bin    pytorch_model.bin.index.json and the shards that it names

If there are several, safetensors comes before PyTorch's files, and a single file before shards.
Nothing is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from minigrad.storage import FileFormatError, load_safetensors, load_torch

WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"


def load_folder(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The tensors by name, and the path of their file (of the index, if there are shards).

    Raises:
        FileNotFoundError: there are no weights, or a shard is missing.
        FileFormatError: a file is damaged, or the index names something that is not there.
    """
    for name in WHOLE:
        if (folder / name).is_file():
            return folder / name, load_file(folder / name)
        index = folder / f"{name}{INDEX}"
        if index.is_file():
            return index, _load_shards(index)
    raise FileNotFoundError(
        f"{folder} has no weights: neither {' nor '.join(WHOLE)}, nor an index of shards "
        f"({WHOLE[0]}{INDEX}). Save the model with model.save_pretrained(folder)"
    )


def load_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors by name of a `.safetensors` file or a PyTorch file."""
    return (
        load_safetensors(path, mapped=True)[0]
        if path.suffix == ".safetensors"
        else load_torch(path)
    )


def _load_shards(index: Path) -> dict[str, np.ndarray]:
    try:
        places: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        shards = sorted(set(places.values()))
        plain = [PurePosixPath(s).name == PureWindowsPath(s).name == s != "" for s in shards]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(index, f"not an index of shards ({error!r})") from error
    if not shards or not all(plain) or any("\0" in shard for shard in shards):
        raise FileFormatError(index, "names no shards, or shards that are not beside it")
    tensors: dict[str, np.ndarray] = {}
    for shard in shards:
        path = index.with_name(shard)
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: {index.name} names {len(shards)} shards, of which all are "
                "needed"
            )
        found = load_file(path)
        wanted = [name for name, place in places.items() if place == shard]
        missing = [name for name in wanted if name not in found]
        if missing:
            raise FileFormatError(path, f"{index.name} says that it holds {missing[0]!r}")
        tensors |= {name: found[name] for name in wanted}
    return tensors
