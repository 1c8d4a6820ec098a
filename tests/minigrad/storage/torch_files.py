"""PyTorch files made by hand, good and bad: an archive, and a pickle one instruction at a time."""

import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from minigrad.storage import FileFormatError, load_torch

END = b"."
PROTOCOL_2 = b"\x80\x02"


def text(value: str) -> bytes:
    """The instruction that pushes a string."""
    encoded = value.encode("utf-8")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    """The instruction that pushes an integer of any size."""
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def name(module: str, attribute: str) -> bytes:
    """The instruction that pushes a global of a module."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def group(*items: bytes) -> bytes:
    """A tuple of any length."""
    return b"(" + b"".join(items) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    """A function called with arguments."""
    return function + group(*arguments) + b"R"


def mapping(**items: bytes) -> bytes:
    """A dict with string keys."""
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


ORDERED_DICT = call(name("collections", "OrderedDict"))


def storage(key: str = "0", count: int = 6, kind: str = "FloatStorage") -> bytes:
    """A reference to the record `data/KEY`."""
    identity = group(text("storage"), name("torch", kind), text(key), text("cpu"), integer(count))
    return identity + b"Q"


def tensor(
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    offset: int = 0,
    of: bytes | None = None,
) -> bytes:
    """A view of a storage."""
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage() if of is None else of,
        integer(offset),
        group(*map(integer, shape)),
        group(*map(integer, strides)),
        b"\x89",
        ORDERED_DICT,
    )


SIX_FLOATS = struct.pack("<6f", 0.5, 1.5, 2.5, 3.5, 4.5, 5.5)


def write_archive(
    path: Path,
    program: bytes,
    records: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write an archive to `path`, with these records and this pickle; its frame is added."""
    if records is None:
        records = {"data/0": SIX_FLOATS}
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", PROTOCOL_2 + program + END)
        archive.writestr("archive/version", b"3\n")
        for record, content in records.items():
            archive.writestr(f"archive/{record}", content)
    return path


def refused(path, message, growth=8):
    """`path` is refused quickly, with at most 4 MiB + growth * its size of memory.

    With `growth` None memory is not measured, because that takes ten times as long as reading.
    """
    started = time.process_time()
    if growth is not None:
        tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=message) as caught:
            load_torch(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = (4 << 20) + (growth or 0) * path.stat().st_size
    assert peak < allowed, f"{peak:,} bytes of memory for a file of {path.stat().st_size:,}"
    assert time.process_time() - started < 10
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 600
