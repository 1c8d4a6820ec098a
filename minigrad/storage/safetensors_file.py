"""Reading and writing safetensors: named arrays and a few strings, with nothing in it to execute.

The format: 8 bytes that give the length of a JSON header, the header, the bytes of the tensors
(https://github.com/huggingface/safetensors). The `safetensors` package checks what we read. We do
not
use it for writing: it puts metadata in a random order, so that equal checkpoints have different
checksums; it writes wrong values for arrays that are not contiguous; and it has no bfloat16.
"""

import json
import mmap
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from minigrad.storage.files import FileFormatError, atomic_write, is_special
from minigrad.storage.stored_dtypes import decode, round_to_bfloat16

_NAME_OF_CODE = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_CODE_OF_NAME = {name: code for code, name in _NAME_OF_CODE.items()}
MAPPED = 1 << 24  # bytes of a file that is worth it
_FLOAT_NAMES = ("float64", "float32", "float16", "bfloat16")


class TensorInfo(NamedTuple):
    """What a file says of one tensor: its shape, and its dtype as stored ("bfloat16", ...)."""

    dtype: str
    shape: tuple[int, ...]


def save_safetensors(
    tensors: Mapping[str, Any],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    dtype: str | None = None,
) -> None:
    """Write named arrays, atomically. Equal input gives equal bytes.

    Args:
        tensors: name -> array of any memory layout, tensor (anything with `numpy()`), GPU array
            (anything with `get()`) or plain number. bool, integers, floats of 16 to 64 bits and
            complex64 are supported.
        path: the file to create or to replace; see `atomic_write`.
        metadata: strings to keep beside the tensors.
        dtype: "float64", "float32", "float16" or "bfloat16", in which floats are stored, rounded to
            nearest even. Integers and bool stay as they are.

    Raises:
        OSError: the file could not be written; the previous one is untouched.
        TypeError: the tensors are no dict, a name is not a string, or a value is not an array of a
            dtype above.
        ValueError: a finite value is too large for `dtype`.
    """
    if dtype is not None and dtype not in _FLOAT_NAMES:
        raise ValueError(f"dtype is {dtype!r}; it must be None or one of {', '.join(_FLOAT_NAMES)}")
    if not isinstance(tensors, Mapping):
        raise TypeError(
            f"tensors are a dict of arrays by name, such as model.state_dict(), not a "
            f"{type(tensors).__name__}"
        )
    header: dict[str, Any] = {}
    if metadata is not None:
        for key, text in metadata.items():
            if not isinstance(key, str) or not isinstance(text, str):
                raise TypeError(f"metadata[{key!r}] is {text!r}; keys and values must be strings")
        header["__metadata__"] = dict(metadata)
    arrays: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise TypeError(f"{name!r} cannot be the name of a tensor; use another string")
        code, arrays[name] = _to_stored(name, value, dtype)
        header[name] = {"dtype": code, "shape": list(arrays[name].shape)}
    # The widest elements go first, so that each tensor is aligned for a reader that maps the file.
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    end = 0
    for name in order:
        begin, end = end, end + arrays[name].nbytes
        header[name]["data_offsets"] = [begin, end]
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    head += b" " * (-len(head) % 8)
    with atomic_write(path) as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in order:
            file.write(arrays[name].reshape(-1).view(np.uint8).data)


def _to_stored(name: str, value: Any, dtype: str | None) -> tuple[str, np.ndarray]:
    """The format's dtype code, and the array as it goes into the file: C order, little-endian."""
    array = _to_numpy(value)
    stored_name = array.dtype.name
    if dtype is not None and stored_name in _FLOAT_NAMES and stored_name != dtype:
        array, stored_name = _round(name, array, dtype), dtype
    if stored_name not in _CODE_OF_NAME:
        raise TypeError(
            f"tensor {name!r} has dtype {array.dtype}, which the file cannot hold; convert it first"
        )
    little_endian = array.dtype.newbyteorder("<")
    return _CODE_OF_NAME[stored_name], array.astype(little_endian, order="C", copy=False)


def _to_numpy(value: Any) -> np.ndarray:
    """An array in main memory from an array, a tensor, a GPU array, a number or a list."""
    if not isinstance(value, np.ndarray) and callable(getattr(value, "numpy", None)):
        value = value.numpy()
    if not isinstance(value, np.ndarray) and hasattr(value, "shape") and hasattr(value, "get"):
        value = value.get()
    return np.asarray(value)


def _round(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """`array` in another float dtype, bfloat16 as its bits."""
    if dtype == "bfloat16":
        rounded = round_to_bfloat16(array)
        became_infinite = (rounded & 0x7FFF) == 0x7F80
    else:
        with np.errstate(over="ignore", under="ignore"):
            rounded = array.astype(dtype)
        became_infinite = np.isinf(rounded)
    if np.any(became_infinite & np.isfinite(array)):
        raise ValueError(
            f"tensor {name!r} holds values too large for {dtype}; save it in a wider dtype"
        )
    return rounded


def load_safetensors(
    path: str | os.PathLike[str], *, mapped: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read named arrays and metadata.

    bfloat16 and 8-bit floats are widened to float32, exactly; `inspect_safetensors` tells what they
    were. The arrays are contiguous, writable and own their memory; they come in the order of the
    file's header. A shared tensor that `safetensors.torch.save_model` has stored under one name,
    with its other names in the metadata, is there under each of them, as one array.

    Args:
        mapped: memory-map a large file. The system reads a page when it is first used, and copies
            a page that is written to, so the file does not change. As long as the arrays live, the
            file may be replaced but not written to. Not done on Windows, where it could not be
            replaced either, nor for dtypes that are widened.

    Raises:
        FileFormatError: the file is truncated, damaged or not safetensors, or has a dtype not known
            here.
        OSError: the file cannot be read.
    """
    infos, metadata = inspect_safetensors(path)  # the package compares the header with the file
    tensors = {}
    try:
        with open(path, "rb") as file:
            whole = _map(file) if mapped else None
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                begin, end = entry["data_offsets"]
                if whole is None:
                    file.seek(8 + length + begin)
                    raw = np.fromfile(file, dtype=np.uint8, count=end - begin)
                else:
                    raw = whole[8 + length + begin : 8 + length + end]
                flat = decode(raw, infos[name].dtype, "little")
                tensors[name] = flat.reshape(infos[name].shape)
    except (ValueError, OverflowError) as error:
        raise FileFormatError(path, f"not a valid safetensors file ({error})") from error
    for name, kept in metadata.items():
        if kept in infos and name not in infos:
            tensors[name] = tensors[kept]
    return tensors, metadata


def _map(file: Any) -> np.ndarray | None:
    """A file's bytes, memory-mapped; None if it is small, or could not be replaced meanwhile."""
    if os.name != "posix" or os.fstat(file.fileno()).st_size < MAPPED:
        return None
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. A repeated key is an error, since readers differ in what they make of it."""
    items = dict(pairs)
    if len(items) != len(pairs):
        raise ValueError("its header has a name twice")
    return items


def inspect_safetensors(
    path: str | os.PathLike[str],
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The stored dtype and shape of each tensor, and the metadata, without reading the tensors.

    Raises as `load_safetensors` does.
    """
    # A missing or unreadable file is an OSError here, whatever the package makes of it.
    if is_special(path):
        raise FileFormatError(path, "it is a device, a pipe or a socket, and no file")
    with open(path, "rb"):
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            infos = {
                name: TensorInfo(_dtype_name(path, name, part.get_dtype()), tuple(part.get_shape()))
                for name, part in slices.items()
            }
            return infos, file.metadata() or {}
    except SafetensorError as error:
        raise _not_safetensors(path, error) from error


def _not_safetensors(path: str | os.PathLike[str], error: Exception) -> FileFormatError:
    """The package's error, with the name of the file and the likely reasons."""
    reason = str(error).removeprefix("Error while deserializing: ")
    return FileFormatError(
        path,
        f"not a valid safetensors file ({reason}). It is truncated, damaged or of another format",
    )


def _dtype_name(path: str | os.PathLike[str], name: str, code: str) -> str:
    """ "F32" -> "float32"."""
    if code not in _NAME_OF_CODE:
        raise FileFormatError(path, f"tensor {name!r} has dtype {code}, which is not supported")
    return _NAME_OF_CODE[code]
