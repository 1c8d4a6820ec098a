"""Reading UTF-8 text in blocks of constant size."""

import codecs
import os
from collections.abc import Iterator
from typing import BinaryIO

BLOCK_BYTES = 1 << 20


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
