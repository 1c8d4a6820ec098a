"""The zip archive around a PyTorch file, which may be hostile.

`torch.save` writes one folder of uncompressed records: `NAME/data.pkl`, `NAME/byteorder`, and one
`NAME/data/KEY` for each storage. Only that is accepted. Because nothing is compressed, and the
records together may not be larger than the file, a file cannot ask for more memory than its own
size.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np

from minigrad.storage.files import FileFormatError

RESAVE = (
    "load it with PyTorch and save it again:"
    " torch.save(torch.load(PATH, weights_only=True, map_location='cpu'), PATH)"
)
_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # a pickled constant of PyTorch < 1.6
_MAX_READ = 16 << 20
_CHUNK = 1 << 20
# What Python's zipfile raises on damaged archives, beside BadZipFile.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    EOFError,
    IndexError,
    KeyError,
    struct.error,
    zlib.error,
)


class _GuardedFile(io.BufferedReader):
    """A file that refuses one huge read, as zipfile does for a list of records of any length."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_READ:
            raise zipfile.BadZipFile(f"a list of records of {size:,} bytes")
        return super().read(size)


class TorchArchive:
    """The records of one file, by their names without the folder: "data.pkl", "data/0", ..."""

    def __init__(self, path: str | os.PathLike[str], zip_file: zipfile.ZipFile, size: int) -> None:
        self.path = path
        self.size = size
        self._zip = zip_file
        self._records = self._checked_records()

    def _checked_records(self) -> dict[str, zipfile.ZipInfo]:
        entries = [entry for entry in self._zip.infolist() if not entry.filename.endswith("/")]
        folders = {entry.filename.partition("/")[0] for entry in entries}
        records: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for entry in entries:
            shown = repr(entry.filename[:100])
            parts = entry.filename.split("/")
            if "" in parts or "." in parts or ".." in parts or "\\" in entry.filename:
                raise FileFormatError(self.path, f"refused: record {shown} has an unsafe path")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1:
                raise FileFormatError(
                    self.path,
                    f"refused: record {shown} is compressed or encrypted, which torch.save never"
                    f" does; {RESAVE}",
                )
            if entry.compress_size != entry.file_size:
                raise FileFormatError(self.path, f"refused: record {shown} declares two sizes")
            name = "/".join(parts[1:])
            if name in records:
                raise FileFormatError(self.path, f"refused: record {shown} is there twice")
            records[name] = entry
            total += entry.file_size
        if len(folders) > 1 or "" in records:
            raise FileFormatError(
                self.path, "not a PyTorch file: its records are not in one common folder"
            )
        if total > self.size:
            raise FileFormatError(
                self.path,
                f"refused: its records claim {total:,} bytes, and the file has {self.size:,}",
            )
        if "constants.pkl" in records:
            raise FileFormatError(
                self.path,
                "a TorchScript archive, not a state dict; save model.state_dict() instead",
            )
        if "data.pkl" not in records:
            raise FileFormatError(self.path, "not a PyTorch file: a zip archive without data.pkl")
        return records

    def size_of(self, name: str) -> int | None:
        """Bytes of a record, or None if there is no such record."""
        return self._records[name].file_size if name in self._records else None

    def read(self, name: str, limit: int | None = None) -> np.ndarray:
        """(bytes,) uint8, writable. The record must exist; its checksum is verified."""
        entry = self._records[name]
        if limit is not None and entry.file_size > limit:
            raise FileFormatError(
                self.path, f"refused: {name} has {entry.file_size:,} bytes, more than {limit:,}"
            )
        data = np.empty(entry.file_size, dtype=np.uint8)
        done = 0
        try:
            with self._zip.open(entry) as record:
                while chunk := record.read(_CHUNK):
                    data[done : done + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
                    done += len(chunk)
            if done != len(data):
                raise EOFError("it ends too early")
        except (*_ZIP_ERRORS, OSError) as error:
            raise _damaged(self.path, error) from error
        return data

    def byteorder(self) -> Literal["little", "big"]:
        """ "little" or "big". Files of PyTorch before 2.1 do not say; they are little-endian."""
        if "byteorder" not in self._records:
            return "little"
        text = self.read("byteorder", limit=16).tobytes()
        if text not in (b"little", b"big"):
            raise FileFormatError(self.path, f"damaged: unknown byte order {text!r}")
        return "little" if text == b"little" else "big"


@contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[TorchArchive]:
    """Open a file that `torch.save` wrote.

    Raises:
        FileFormatError: it is not such a file, or is one that is refused.
        OSError: it cannot be read.
    """
    with _GuardedFile(io.FileIO(path)) as file:
        start = file.read(16)
        size = file.seek(0, io.SEEK_END)
        if start.startswith(_LEGACY_MAGIC):
            raise FileFormatError(
                path, f"in PyTorch's old format (before 1.6), which is not read here; {RESAVE}"
            )
        if not start.startswith(b"PK"):
            raise FileFormatError(path, "not a PyTorch file: it is not a zip archive")
        try:
            archive = zipfile.ZipFile(file)
        except (*_ZIP_ERRORS, OSError) as error:
            raise _damaged(path, error) from error
        with archive:
            yield TorchArchive(path, archive, size)


def _damaged(path: str | os.PathLike[str], error: Exception) -> FileFormatError:
    """The error of zipfile, with the likely reasons."""
    reason = str(error)[:200] or type(error).__name__
    return FileFormatError(path, f"truncated or damaged archive ({reason}). Get the file again")
