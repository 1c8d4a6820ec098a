"""`TokenFile`: the token ids of a corpus in a memory-mapped file.

Layout: 8 bytes `TOKENS1\\n`; the length of the header, 4 bytes, little-endian; the header, a JSON
object padded with spaces so that what follows begins at a multiple of 64 bytes; the ids, as
little-endian uint16, or uint32 for vocabularies of more than 65,536 tokens.

The header has the fingerprint of the tokenizer, the SHA-256 of the text, the number of ids and
their SHA-256. So a file is used again if nothing has changed, and refused if it is damaged or
belongs to another text. Files of older versions lack the last SHA-256: only the range of their ids
is checked, and `build` makes them again.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from minigrad.storage import atomic_write
from tinyalpaca.data.corpora import SEPARATOR, Corpus
from tinyalpaca.tokenizer import Tokenizer
from tinyalpaca.tokenizer.bpe_training import progress_bar

MAGIC = b"TOKENS1\n"
_ALIGNMENT = 64
_CHECKED_AT_A_TIME = 1 << 20  # ids, so that a large file need not fit the memory
_DTYPES = ("<u2", "<u4")


@dataclass(frozen=True)
class Header:
    """What a token file says about itself."""

    dtype: str  # "<u2" or "<u4"
    count: int  # number of ids
    vocab_size: int
    tokenizer: str  # fingerprint
    text: str  # SHA-256 of the corpus
    source: str  # where the text came from, in words
    ids: str = ""  # SHA-256 of the bytes of the ids

    def same_content(self, other: "Header") -> bool:
        """Whether both come from the same text by the same tokenizer."""
        return (self.tokenizer, self.text) == (other.tokenizer, other.text)


class TokenFile:
    """An open token file: `tokens` is a read-only 1-D array, `header` says what it is."""

    path: Path
    header: Header
    tokens: np.ndarray

    def __init__(self, path: Path, header: Header, tokens: np.ndarray) -> None:
        self.path, self.header, self.tokens = path, header, tokens

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def open(cls, path: str | os.PathLike[str], tokenizer: Tokenizer | None = None) -> "TokenFile":
        """Map a token file. Raises `ValueError` if it is damaged or another tokenizer made it."""
        path = Path(path)
        header, offset = _read_header(path)
        if tokenizer is not None and header.tokenizer != tokenizer.fingerprint:
            raise ValueError(
                f"{path} was made by another tokenizer (fingerprint {header.tokenizer[:12]}, "
                f"vocabulary of {header.vocab_size}) than the one given "
                f"({tokenizer.fingerprint[:12]}, {tokenizer.vocab_size}): encode the text again, "
                "or give the tokenizer that made it"
            )
        expected = offset + header.count * np.dtype(header.dtype).itemsize
        size = path.stat().st_size
        if size != expected:
            raise ValueError(
                f"{path} is damaged: its header promises {header.count} tokens, {expected} bytes "
                f"in all, but it has {size}; delete it and encode the text again"
            )
        if not header.count:
            return cls(path, header, np.zeros(0, header.dtype))
        mapped = np.memmap(path, header.dtype, "r", offset, (header.count,))
        tokens = np.asarray(mapped)
        _check_ids(path, header, tokens)
        return cls(path, header, tokens)

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        corpus: Corpus,
        tokenizer: Tokenizer,
        *,
        progress: bool = True,
        own_folder: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> "TokenFile":
        """The token file of a corpus: the old one if text and tokenizer are unchanged, else new.

        Reads the corpus in blocks, so memory does not grow with its size. The special token
        `<|endoftext|>` is put between documents if the tokenizer has it. The file is written
        atomically: whatever happens, `path` is the whole old file or the whole new one.

        Args:
            own_folder: the file is not one that the user named. Then it is an error if `path` is
                something else than a token file, and a link is replaced, not what it points to.
            say: called with a message if the old file is damaged.

        Raises:
            ValueError: with `own_folder`, `path` is a user's file of another kind.
        """
        path = Path(path)
        if not own_folder and path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError(f"{path} is no file: a token file cannot be written there")
        header = Header(
            dtype=tokenizer.dtype.newbyteorder("<").str,
            count=0,
            vocab_size=tokenizer.vocab_size,
            tokenizer=tokenizer.fingerprint,
            text=corpus.sha256(),
            source=corpus.source,
        )
        if path.exists():
            existing = None
            if own_folder and _beginning(path) not in (MAGIC, b""):  # an empty file may be replaced
                raise ValueError(
                    f"{path} is no token file, or a damaged one, and would be overwritten: if "
                    "it is yours, move it to another place, else delete it"
                )
            try:
                existing = cls.open(path)
            except ValueError as error:  # damaged or something else: written anew
                say(f"{error}. It is made anew.")
            if (
                existing is not None
                and existing.header.same_content(header)
                and existing.header.ids
                and existing.header.vocab_size == header.vocab_size
            ):
                return existing
        offset = len(_header_bytes(replace(header, ids="0" * 64), 0))
        count, digest = 0, hashlib.sha256()
        with atomic_write(path, make_folders=True, follow_links=not own_folder) as file:
            file.seek(offset)
            for ids in encoded(corpus, tokenizer, progress=progress):
                data = ids.astype(header.dtype).tobytes()
                file.write(data)
                digest.update(data)
                count += len(ids)
            file.seek(0)
            file.write(_header_bytes(replace(header, ids=digest.hexdigest()), count))
        return cls.open(path, tokenizer)


def _check_ids(path: Path, header: Header, tokens: np.ndarray) -> None:
    """Raise `ValueError` if the ids are not those that were written, or out of range."""
    digest, largest = hashlib.sha256(), 0
    for start in range(0, len(tokens), _CHECKED_AT_A_TIME):
        part = tokens[start : start + _CHECKED_AT_A_TIME]
        if header.ids:
            digest.update(part.tobytes())
        largest = max(largest, int(part.max()))
    if header.ids and digest.hexdigest() != header.ids:
        cause = "its ids do not match their checksum"
    elif largest >= header.vocab_size:
        cause = f"it has id {largest}, its vocabulary {header.vocab_size} tokens"
    else:
        return
    raise ValueError(f"{path} is damaged: {cause}; delete it and encode the text again")


def is_token_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file that begins as a token file does."""
    return _beginning(path) == MAGIC


def _beginning(path: str | os.PathLike[str]) -> bytes | None:
    """The first bytes of a file, where a token file has its mark; None if it is not a file."""
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read(len(MAGIC))


def encoded(
    corpus: Corpus, tokenizer: Tokenizer, *, progress: bool = False
) -> Iterator[np.ndarray]:
    """The ids of a corpus as arrays, with the separator's between documents if there is one.

    Raises:
        ValueError: a document cannot be read, or has what the tokenizer has no token for; names it.
    """
    separator = tokenizer.end_token
    with progress_bar("tokens", progress) as bar:
        for number, document in enumerate(corpus.documents):
            if number and separator is not None:
                yield np.array([separator])
            try:
                for ids in tokenizer.encode_blocks(document.blocks()):
                    yield ids
                    bar.update(len(ids))
            except ValueError as error:
                if document.name in str(error):
                    raise
                raise ValueError(f"{document.name}: {error}") from error


def unmarked_joins(corpus: Corpus, tokenizer: Tokenizer) -> str:
    """A sentence if there is no token between the documents, else ""."""
    if len(corpus.documents) < 2 or tokenizer.end_token is not None:
        return ""
    return (
        f"the tokenizer has no {SEPARATOR}: the {len(corpus.documents)} texts of {corpus.source} "
        "follow one another without a mark between them"
    )


def _header_bytes(header: Header, count: int) -> bytes:
    """All that comes before the ids; its length does not depend on `count`."""
    content = {**asdict(header), "count": count}
    text = json.dumps(content).encode("ascii")
    room = len(json.dumps({**content, "count": 10**18}))
    start = len(MAGIC) + 4
    padded = -(-(start + room + 1) // _ALIGNMENT) * _ALIGNMENT - start
    return MAGIC + struct.pack("<I", padded) + text.ljust(padded - 1) + b"\n"


def _read_header(path: Path) -> tuple[Header, int]:
    """The header and where the ids begin."""
    with open(path, "rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            raise ValueError(f"{path} is not a token file: it does not begin with {MAGIC!r}")
        length_bytes = file.read(4)
        length = struct.unpack("<I", length_bytes)[0] if len(length_bytes) == 4 else 0
        if not 0 < length <= path.stat().st_size:
            raise ValueError(f"{path} is damaged: it ends within its header")
        text = file.read(length)
    try:
        header = Header(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: its header cannot be read ({error})") from None
    numbers = (header.count, header.vocab_size)
    strings = (header.tokenizer, header.text, header.source, header.ids)
    if (
        header.dtype not in _DTYPES
        or not all(isinstance(number, int) and number >= 0 for number in numbers)
        or not all(isinstance(string, str) for string in strings)
    ):
        raise ValueError(f"{path} is damaged: its header holds values that make no sense: {header}")
    return header, len(MAGIC) + 4 + length
