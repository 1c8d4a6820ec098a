"""Reading UTF-8 text in blocks of constant size, and writing files that are never half there."""

import codecs
import glob
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

BLOCK_BYTES = 1 << 20
ABANDONED_SECONDS = 3600.0
_number = itertools.count()  # tells the partial files of one process apart


def decode_utf8(data: bytes, name: str) -> str:
    """`data` as text; a `ValueError` that names the file and the byte offset if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(name, error.start, data[error.start]) from None


def not_utf8(name: str, offset: int, value: int) -> ValueError:
    return ValueError(
        f"{name} is not UTF-8 text: byte 0x{value:02x} at byte offset {offset} does not belong "
        "there; convert the file to UTF-8 first"
    )


def read_utf8_blocks(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the text of a file piece by piece, line ends untouched; never splits a character.

    Raises `ValueError` with the byte offset where the file stops being UTF-8.
    """
    with open(path, "rb") as file:
        yield from decode_utf8_blocks(file, os.fspath(path))


def decode_utf8_blocks(file: BinaryIO, name: str) -> Iterator[str]:
    """The same, for a binary stream that is already open."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    consumed = 0  # bytes handed to the decoder before this block
    while True:
        block = file.read(BLOCK_BYTES)
        pending = len(decoder.getstate()[0])  # bytes of an unfinished character, held over
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            offset = consumed - pending + error.start
            raise not_utf8(name, offset, error.object[error.start]) from None
        if text:
            yield text
        if not block:
            return
        consumed += len(block)


@contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary neighbour of `path` for writing; it gets the name `path` when complete.

    A reader, or a process killed half-way, sees the old file or none, never a part of the new one.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}-{next(_number)}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        with suppress(FileNotFoundError):
            partial.unlink()
        raise


def _remove_abandoned(target: Path) -> None:
    """Delete what writers that were killed left behind: partial files untouched for an hour."""
    for partial in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
                partial.unlink()


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 with line ends as they are."""
    with atomic_writer(path) as file:
        file.write(text.encode("utf-8"))
