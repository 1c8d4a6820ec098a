"""Where a text comes from: files, folders, pipes, devices.

A text is read more than once, but a pipe or a device can be read only once. So it is first copied
to a temporary file. Noise and endless streams are noticed during the copy, and are errors.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tinyalpaca.text_files import BLOCK_BYTES, decode_utf8_blocks

WAIT_SECONDS = 10.0  # the time to wait for a writer of a named pipe
SPARE_BYTES = 1 << 28  # of the disk with temporary files that a stream may not take


class Spool:
    """A stream kept in a temporary file, which is deleted with this object.

    Args:
        stream: is read to its end.
        name: for error messages.

    Raises:
        ValueError: the stream is not text, or does not end.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as this lives)
        weakref.finalize(self, self.file.close)
        for _ in decode_utf8_blocks(_Copying(stream, self.file, name), name):  # type: ignore[arg-type]
            pass


class _Copying(io.RawIOBase):
    """Reads a stream and writes all that is read into a file."""

    def __init__(self, stream: BinaryIO, file: BinaryIO, name: str) -> None:
        self._stream, self._file, self._name = stream, file, name

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self._file.write(block)
        if len(block) >= BLOCK_BYTES // 2:
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if free < SPARE_BYTES:
                folder = tempfile.gettempdir()
                raise ValueError(
                    f"{self._name}: after {self._file.tell():,} bytes there is no end, and "
                    f"{folder} is full; give a file, or let TMPDIR name a larger disk"
                )
        return block


def spool_of(path: Path) -> Spool | None:
    """A copy of what a pipe or a device gives; None for an ordinary file.

    Raises:
        ValueError: no process writes to the pipe, or it is something that holds no text.
        OSError: it cannot be read.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        kind = "a socket" if stat.S_ISSOCK(mode) else "a device that holds no text"
        raise ValueError(f"{path} is {kind}, not a file")
    if stat.S_ISCHR(mode):
        with open(path, "rb") as file:
            return Spool(file, str(path))
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        first = _first_bytes(pipe, path)
        os.set_blocking(pipe.fileno(), True)
        return Spool(_Rest(first, pipe), str(path))  # type: ignore[arg-type]


def _first_bytes(pipe: io.FileIO, path: Path) -> bytes:
    """The first bytes of a named pipe; b"" if it has a writer who has written nothing yet."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        data = pipe.read(BLOCK_BYTES)
        if data is None:  # a writer has it open
            return b""
        if data:
            return data
        time.sleep(0.02)
    raise ValueError(
        f"{path} is a named pipe to which nobody has written within {WAIT_SECONDS:.0f} seconds"
    )


class _Rest(io.RawIOBase):
    """A stream of which the first bytes have been read."""

    def __init__(self, first: bytes, stream: io.FileIO) -> None:
        self._first, self._stream = first, stream

    def read(self, size: int = -1) -> bytes:
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        return self._stream.read(size) or b""


def text_files_in(folder: Path) -> tuple[list[Path], int]:
    """The `.txt` files of a folder and its subfolders, in the order of their names.

    Hidden files and folders are left out. Links are followed, each folder is visited once.

    Returns:
        The files, and how many of them are in subfolders.

    Raises:
        FileNotFoundError: there is none.
        OSError: a file or a folder cannot be read; says which, and why.
        ValueError: one of them is not a file, such as a pipe.
    """
    found = sorted(_walk(folder, set()))
    for path in found:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            if path.is_symlink():
                raise type(error)(
                    error.errno,
                    f"a link to {os.readlink(path)}, which cannot be followed "
                    f"({error.strerror}); mend it or remove it",
                    str(path),
                ) from None
            raise
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is no ordinary file; name it by itself as --data")
    if not found:
        raise FileNotFoundError(f"the folder {folder} has no .txt files")
    return found, sum(path.parent != folder for path in found)


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, seen)
        elif path.suffix.lower() == ".txt":
            yield path
