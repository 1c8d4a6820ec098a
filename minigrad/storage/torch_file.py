"""Reading a PyTorch `.pth` or `.pt` file, without PyTorch and without running its code.

A file of `torch.save` is an archive of raw numbers (`torch_zip`) and a pickle that describes views
of them (`torch_pickle`). Here the descriptions are checked against the numbers and become NumPy
arrays.
"""

import os
from typing import Any

import numpy as np

from minigrad.storage.files import FileFormatError
from minigrad.storage.stored_dtypes import decode, loaded_itemsize, stored_itemsize
from minigrad.storage.torch_objects import (
    Marker,
    Size,
    StorageRef,
    TensorRef,
    UnpicklingRefused,
    replaced,
    type_name,
)
from minigrad.storage.torch_pickle import MAX_PROGRAM_BYTES, read_state_pickle
from minigrad.storage.torch_zip import TorchArchive, open_archive

# Under which keys training scripts keep the weights, the most usual first.
_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "module", "weights", "params")
# What may stand between the tensors of a state dict, besides dtypes.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, set, Size)
# Views may repeat elements (`expand`), which needs no space in the file, but does in memory.
_MAX_GROWTH = 8
_MAX_GROWTH_OF_SMALL_FILES = 64 << 20


def load_torch(path: str | os.PathLike[str], key: str | None = None) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict that PyTorch saved, by name, in the order of the file.

    Nothing in the file is executed; see `torch_pickle`. Memory is bounded by a small multiple of
    the file's size.

    Args:
        path: a file that `torch.save(model.state_dict(), path)` wrote (PyTorch 1.6 or newer), or a
            dictionary that holds a state dict, as checkpoints of training scripts do.
        key: under which key of such a dictionary the state dict is. None: "state_dict",
            "model_state_dict", "model" and a few more are tried, then a single entry that holds
            tensors.

    Returns:
        name -> array. bfloat16 and 8-bit floats are widened to float32, exactly. As in PyTorch,
        tensors that share a storage share memory, and may be strided views. Plain data between the
        tensors (numbers, strings, None, sizes, sets, bytes, devices, dtypes) are left out:
        `load_torch_checkpoint` gives them.

    Raises:
        FileFormatError: the file is damaged, is no state dict, or has what no state dict needs.
        OSError: the file cannot be read.
    """
    with open_archive(path) as archive:
        root = _read_root(archive)
        tensors = _tensors_of(path, _find_state_dict(path, root, key))
        return _build(archive, tensors)


def load_torch_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read all that PyTorch saved in a file, as plain Python data with arrays in it.

    For the states of schedulers and optimizers, for settings and counters: whatever
    `torch.load(path, weights_only=True)` reads, of dense tensors. Nothing is executed.

    Args:
        path: a file that `torch.save` wrote (PyTorch 1.6 or newer).

    Returns:
        dicts (of `OrderedDict` and `Counter` too), lists, tuples (of `torch.Size` too), sets,
        numbers, strings, bytes and None as they are; a tensor as an array, see `load_torch`; a
        device as "cuda:0", a dtype as "float32".

    Raises:
        FileFormatError: the file is damaged, or has something other than tensors and plain data.
        OSError: the file cannot be read.
    """
    with open_archive(path) as archive:
        root = _read_root(archive)
        found: dict[str, TensorRef] = {}

        def number(value: Any) -> Any:
            if isinstance(value, TensorRef):
                found[f"number {len(found)}"] = value
            return value

        replaced(root, number)
        names = {ref: name for name, ref in found.items()}
        arrays = _build(archive, found)
        return replaced(root, lambda value: _as_plain(path, value, names, arrays))


def _as_plain(
    path: str | os.PathLike[str],
    value: Any,
    names: dict[TensorRef, str],
    arrays: dict[str, np.ndarray],
) -> Any:
    """A value that is no container, as data of Python and NumPy."""
    if isinstance(value, TensorRef):
        return arrays[names[value]]
    if not _is_plain(value):
        raise FileFormatError(path, f"holds a {type_name(value)}, which is no plain data")
    if isinstance(value, Size):
        return tuple(value)
    return value.dtype if isinstance(value, Marker) else value


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (isinstance(value, Marker) and value.role == "dtype")


def _read_root(archive: TorchArchive) -> Any:
    try:
        return read_state_pickle(archive.read("data.pkl", MAX_PROGRAM_BYTES).tobytes())
    except UnpicklingRefused as error:
        raise FileFormatError(archive.path, f"refused: {error}") from error


def _find_state_dict(path: str | os.PathLike[str], root: Any, key: str | None) -> dict[Any, Any]:
    """The dictionary of tensors: the root, or the entry of the root that `load_torch` describes."""
    if type(root) is not dict:
        kind = "a single tensor" if isinstance(root, TensorRef) else f"a {type(root).__name__}"
        raise FileFormatError(path, f"holds {kind}, not a state dict; save model.state_dict()")
    nested = {name: value for name, value in root.items() if _holds_tensors(value)}
    if key is not None:
        if key not in nested:
            raise FileFormatError(
                path, f"has no state dict under {key!r}; it has {_listed(nested) or 'none'}"
            )
        return nested[key]
    for usual in _USUAL_KEYS:
        if usual in nested:
            return nested[usual]
    if _holds_tensors(root) or not nested:
        return root
    if len(nested) > 1:
        raise FileFormatError(
            path, f"has several dictionaries of tensors: {_listed(nested)}; give key= one of these"
        )
    return next(iter(nested.values()))


def _holds_tensors(value: Any) -> bool:
    return type(value) is dict and any(isinstance(item, TensorRef) for item in value.values())


def _listed(names: Any) -> str:
    """At most ten names, for a message."""
    shown = [repr(name)[:100] for name in names]
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")


def _tensors_of(path: str | os.PathLike[str], state: dict[Any, Any]) -> dict[str, TensorRef]:
    """The tensors of a state dict, without the plain values between them."""
    tensors = {}
    for name, value in state.items():
        shown = repr(name)[:100]
        if isinstance(value, TensorRef):
            if type(name) is not str or not name.isprintable():
                raise FileFormatError(
                    path, f"has a tensor whose name is {shown}, not a plain string"
                )
            tensors[name] = value
        elif not _is_plain(value):
            raise FileFormatError(
                path,
                f"entry {shown} is a {type(value).__name__}, which a state dict cannot hold."
                " If it is a checkpoint that holds a state dict, give key=",
            )
    if state and not tensors:
        raise FileFormatError(path, f"holds no tensors; its entries are {_listed(state)}")
    return tensors


def _build(archive: TorchArchive, tensors: dict[str, TensorRef]) -> dict[str, np.ndarray]:
    """All descriptions, checked, as arrays."""
    counts = {name: _checked_count(archive, name, ref) for name, ref in tensors.items()}
    distinct = {ref: counts[name] * loaded_itemsize(ref.dtype) for name, ref in tensors.items()}
    limit = _MAX_GROWTH * archive.size + _MAX_GROWTH_OF_SMALL_FILES
    if sum(distinct.values()) > limit:
        raise FileFormatError(
            archive.path,
            f"refused: its tensors would take {sum(distinct.values()):,} bytes, out of proportion"
            f" to the {archive.size:,} of the file",
        )
    storages: dict[str, tuple[str, np.ndarray]] = {}
    arrays: dict[TensorRef, np.ndarray] = {}
    for name, ref in tensors.items():
        if ref not in arrays:
            arrays[ref] = _view(name, ref, _storage(archive, name, ref, storages))
    return {name: arrays[ref] for name, ref in tensors.items()}


def _checked_count(archive: TorchArchive, name: str, ref: TensorRef) -> int:
    """How many elements a tensor has, after a check that they are in its storage and the file."""
    storage = ref.storage
    size = archive.size_of(f"data/{storage.key}")
    if size is None:
        raise FileFormatError(archive.path, f"damaged: the numbers of tensor {name!r} are missing")
    itemsize = stored_itemsize(ref.dtype)
    declared = storage.count * (1 if storage.dtype is None else stored_itemsize(storage.dtype))
    if declared != size or size % itemsize:
        raise FileFormatError(
            archive.path,
            f"damaged: the storage of tensor {name!r} has {size:,} bytes, and should have"
            f" {declared:,}",
        )
    count = 1
    for length in ref.shape:
        count *= length
    steps = zip(ref.shape, ref.strides, strict=True)
    last = ref.offset + sum((length - 1) * stride for length, stride in steps) if count else -1
    if last >= size // itemsize or ref.offset > size // itemsize:
        raise FileFormatError(
            archive.path,
            f"damaged: tensor {name!r} reaches past its storage of {size // itemsize:,} elements",
        )
    return count


def _storage(
    archive: TorchArchive, name: str, ref: TensorRef, storages: dict[str, tuple[str, np.ndarray]]
) -> np.ndarray:
    """The numbers of a storage as a flat array, read once."""
    storage: StorageRef = ref.storage
    if storage.key not in storages:
        raw = archive.read(f"data/{storage.key}")
        storages[storage.key] = ref.dtype, decode(raw, ref.dtype, archive.byteorder())
    dtype, flat = storages[storage.key]
    if dtype != ref.dtype:
        raise FileFormatError(
            archive.path,
            f"refused: tensor {name!r} reads as {ref.dtype} what another tensor reads as {dtype};"
            " save a clone() of one of them",
        )
    return flat


def _view(name: str, ref: TensorRef, flat: np.ndarray) -> np.ndarray:
    """The tensor as a view of its storage; as a copy where it repeats elements."""
    if 0 in ref.shape:
        return np.empty(ref.shape, dtype=flat.dtype)
    # An axis of length 1 is never stepped along; its stride may be anything, however large.
    strides = tuple(
        stride * flat.itemsize if length > 1 else 0
        for length, stride in zip(ref.shape, ref.strides, strict=True)
    )
    view = np.lib.stride_tricks.as_strided(flat[ref.offset :], shape=ref.shape, strides=strides)
    repeats = any(
        length > 1 and stride == 0 for length, stride in zip(ref.shape, strides, strict=True)
    )
    return view.copy() if repeats else view
