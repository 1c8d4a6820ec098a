"""Reading text in blocks of constant size: UTF-8, or UTF-16 and UTF-32 that say so.

A byte order mark at the beginning names the encoding and is not part of the text. Without one a
text is UTF-8. Bytes that are not text (NUL, many control characters) are an error that names their
offset, because a model would learn noise from them.
"""

import codecs
import os
from collections.abc import Iterator
from typing import BinaryIO

BLOCK_BYTES = 1 << 20
# The longer first: UTF-32's mark begins as UTF-16's does.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
CONTROLS = bytes([*range(1, 8), *range(14, 27), *range(28, 32), 127])  # but \b, ESC, white space
MOST_CONTROLS = 0.1  # of the characters of a block; texts have next to none


def decode_utf8(data: bytes, name: str) -> str:
    """`data` as text; a `ValueError` that names the file and the byte offset if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(name, error.start, data[error.start]) from None


def not_utf8(name: str, offset: int, value: int, encoding: str = "utf-8") -> ValueError:
    if encoding != "utf-8":
        return ValueError(
            f"{name} is not {encoding.upper()} text, as its byte order mark says: byte "
            f"0x{value:02x} at byte offset {offset} does not belong there"
        )
    return ValueError(
        f"{name} is not UTF-8 text: byte 0x{value:02x} at byte offset {offset} does not belong "
        "there; convert the file to UTF-8 first, for example from Windows' or Latin-1 encoding "
        "with: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
    )


def read_utf8_blocks(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the text of a file piece by piece, line ends untouched; never splits a character.

    Raises `ValueError` with the byte offset where the file stops being text.
    """
    with open(path, "rb") as file:
        yield from decode_utf8_blocks(file, os.fspath(path))


def decode_utf8_blocks(file: BinaryIO, name: str) -> Iterator[str]:
    """The same, for a binary stream that is already open."""
    beginning = _read(file, 4)
    marks = [(mark, kind) for mark, kind in BYTE_ORDER_MARKS if beginning.startswith(mark)]
    mark, encoding = marks[0] if marks else (b"", "utf-8")
    decoder = codecs.getincrementaldecoder(encoding)()
    consumed = len(mark)  # bytes handed to the decoder before this block
    characters = 0
    block = beginning[len(mark) :]
    ended = len(beginning) < 4
    while True:
        if not ended and len(block) < BLOCK_BYTES:
            more = file.read(BLOCK_BYTES - len(block))
            ended = not more
            block += more
        pending = len(decoder.getstate()[0])  # bytes of an unfinished character, held over
        try:
            text = decoder.decode(block, final=ended)
        except UnicodeDecodeError as error:
            # Of UTF-16 without a mark, the NUL bytes say more than what is not UTF-8 after them.
            before = error.object[: error.start].decode(encoding, "ignore")
            _check_is_text(before, name, characters)
            offset = consumed - pending + error.start
            raise not_utf8(name, offset, error.object[error.start], encoding) from None
        if text:
            _check_is_text(text, name, characters)
            yield text
        if ended:
            return
        consumed += len(block)
        characters += len(text)
        block = b""


def _read(file: BinaryIO, count: int) -> bytes:
    """That many bytes, or all until the end: a pipe may give fewer at a time."""
    data = b""
    while len(data) < count and (more := file.read(count - len(data))):
        data += more
    return data


def _check_is_text(text: str, name: str, before: int) -> None:
    """Raise `ValueError` for characters that no text has; `before` counts those read before."""
    if (place := text.find("\0")) >= 0:
        raise ValueError(
            f"{name} is no text: it holds a NUL byte, as character {before + place:,}. It is a "
            "binary file, or UTF-16 without a byte order mark; in that case convert it with: "
            "iconv -f UTF-16LE -t UTF-8 OLD > NEW"
        )
    data = text.encode("utf-8", "surrogatepass")
    controls = len(data) - len(data.translate(None, CONTROLS))
    if controls > max(3, MOST_CONTROLS * len(text)):
        raise ValueError(
            f"{name} is no text: {controls:,} of {len(text):,} characters are control characters. "
            "It is a binary file, or UTF-16 without a byte order mark"
        )
