"""`BPETokenizer`: byte-level byte-pair encoding, and `load_tokenizer` for files of any kind.

>>> tokenizer = BPETokenizer.train("the cat sat on the mat, the hat", num_merges=4, min_frequency=2)
>>> [tokenizer.decode([token]) for token in tokenizer.encode("the fat cat")]
['the', ' ', 'f', 'at', ' ', 'c', 'at']
>>> tokenizer.decode(tokenizer.encode("naïve 🦙"))
'naïve 🦙'

How it works, and where to read it: text is split into words (`pretokenize.py`), each word into
bytes, and bytes are joined by merges that were learned from a text (`bpe_training.py`), the
earliest first (`bpe_encoding.py`). Tokens 0 to 255 are the bytes, then one for each merge, then
special tokens. Since every byte has a token, any text and any byte string comes back exactly.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import starmap
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tinyalpaca.text_files import decode_utf8, read_utf8_blocks
from tinyalpaca.tokenizer import tokenizer_files
from tinyalpaca.tokenizer.added_tokens import AddedToken, AddedTokens
from tinyalpaca.tokenizer.bpe_encoding import WordCache
from tinyalpaca.tokenizer.bpe_parts import BPEParts
from tinyalpaca.tokenizer.bpe_training import Pair, count_words, learn_merges
from tinyalpaca.tokenizer.foreign import Foreign, frame_of
from tinyalpaca.tokenizer.normalizers import normalizer_from_json
from tinyalpaca.tokenizer.pretokenize import PreSplitter, byte_alphabet, bytes_in_token_order
from tinyalpaca.tokenizer.tokenizer_base import (
    AllowedSpecial,
    Tokenizer,
    fingerprint_of,
    require_text,
)


@runtime_checkable
class HasBlocks(Protocol):
    """A text that comes in blocks, such as a document of a `Corpus`."""

    def blocks(self) -> Iterator[str]: ...


Text = str | bytes
Source = Text | os.PathLike[str] | HasBlocks

DEFAULT_MERGES = 100


class BPETokenizer(Tokenizer):
    """Byte-level BPE. Make one with `train` or `load`; the constructor takes the parts.

    `vocabulary[id]` is the bytes of a token, `merges` the pairs of ids in the order learned,
    `special_tokens` a dictionary from their text to their ids, `foreign` the further parts of
    another model's tokenizer.
    """

    def __init__(
        self,
        vocabulary: Sequence[bytes],
        merges: Sequence[Pair],
        special_tokens: dict[str, int] | None = None,
        splitter: PreSplitter | str = "gpt2",
        add_prefix_space: bool = False,
        *,
        foreign: Foreign | None = None,
    ) -> None:
        self.vocabulary: list[bytes] = list(vocabulary)
        self.merges: list[Pair] = list(merges)
        self.special_tokens: dict[str, int] = dict(special_tokens or {})
        if foreign is None:
            by_id = sorted(self.special_tokens.items(), key=itemgetter(1))
            foreign = Foreign(tuple(starmap(AddedToken, by_id)))
        self.foreign = foreign
        self.frame: tuple[tuple[int, ...], tuple[int, ...]] = frame_of(foreign.post_processor)
        self.splitter: PreSplitter = (
            splitter if isinstance(splitter, PreSplitter) else PreSplitter(splitter)
        )
        self.add_prefix_space = add_prefix_space
        self.dtype: np.dtype = np.dtype(np.uint16 if len(self.vocabulary) <= 1 << 16 else np.uint32)
        normalize = normalizer_from_json(foreign.normalizer) if foreign.normalizer else None
        self._added = AddedTokens(foreign.added_tokens, normalize)
        # Whether ordinary text is only words: not changed, and without tokens of its own.
        self._simple = normalize is None and all(t.plain for t in foreign.added_tokens)
        self._cache = self._new_cache()

    def _new_cache(self) -> WordCache:
        ids: dict[bytes, int] = {}
        apart = {token.id for token in self.foreign.added_tokens}
        for index, token in enumerate(self.vocabulary):
            if index not in apart:
                ids.setdefault(token, index)
        for added in self.foreign.added_tokens:  # one that merges make has their name as well
            if added.in_vocabulary:
                ids.setdefault(self.vocabulary[added.id], added.id)
        ranks: dict[Pair, int] = {}
        merged = []
        for rank, (left, right) in enumerate(self.merges):
            ranks[left, right] = rank  # of a pair that a file has twice, the last counts
            merged.append(ids[self.vocabulary[left] + self.vocabulary[right]])
        token_of_byte = [ids.get(bytes([byte]), -1) for byte in range(256)]
        whole = ids if self.foreign.ignore_merges else None
        return WordCache(token_of_byte, ranks, merged, self.dtype, whole=whole)

    @classmethod
    def train(
        cls,
        source: Source | Iterable[Source],
        vocab_size: int | None = None,
        num_merges: int | None = None,
        *,
        min_frequency: int = 2,
        special_tokens: Sequence[str] = (),
        splitter: PreSplitter | str = "gpt2",
        progress: bool = True,
    ) -> "BPETokenizer":
        """Learn a vocabulary from text.

        `source` is a text, a path (`pathlib.Path`), a document of a `Corpus`, or an iterable of
        these, between which no merge reaches. Files are read in blocks, so they may be larger than
        memory. The size is given by one of `vocab_size` (256 bytes + merges + special tokens) and
        `num_merges` (100 if neither is given). Training stops early when no pair occurs
        `min_frequency` times. `splitter`: see `tinyalpaca.tokenizer.pretokenize`. A progress bar
        appears on a terminal when it takes long.

        Raises `ValueError` for a source without text, for text that is not UTF-8, and for sizes
        that cannot be.
        """
        require_text(source)
        special_tokens = list(special_tokens)
        if len(set(special_tokens)) != len(special_tokens) or "" in special_tokens:
            raise ValueError(f"special tokens must be different and not empty: {special_tokens}")
        num_merges = _number_of_merges(vocab_size, num_merges, len(special_tokens))
        splitter = splitter if isinstance(splitter, PreSplitter) else PreSplitter(splitter)
        words = count_words(_documents(source), splitter, progress)
        if not words:
            raise ValueError("there is no text to train a tokenizer on: the source is empty")
        merges = learn_merges(words, num_merges, min_frequency, progress)
        return cls.from_merges(merges, special_tokens, splitter)

    @classmethod
    def from_merges(
        cls,
        merges: Sequence[Pair],
        special_tokens: Sequence[str] = (),
        splitter: PreSplitter | str = "gpt2",
    ) -> "BPETokenizer":
        """Number the tokens as `train` does: bytes, merges in order, special tokens."""
        vocabulary = [bytes([byte]) for byte in bytes_in_token_order()]
        known = set(vocabulary)
        for left, right in merges:
            token = vocabulary[left] + vocabulary[right]
            if token not in known:
                known.add(token)
                vocabulary.append(token)
        alphabet = byte_alphabet()
        names = {"".join(alphabet[byte] for byte in token) for token in vocabulary}
        for text in special_tokens:
            if text in names:
                raise ValueError(
                    f"special token {text!r} would have the name of an ordinary token in files; "
                    f"choose another, such as '<|{text}|>'"
                )
        special = {text: len(vocabulary) + i for i, text in enumerate(special_tokens)}
        vocabulary += [text.encode("utf-8") for text in special_tokens]
        return cls(vocabulary, merges, special, splitter)

    @classmethod
    def from_parts(cls, parts: BPEParts) -> "BPETokenizer":
        """The tokenizer with these parts."""
        return cls(**parts._asdict())

    @property
    def parts(self) -> BPEParts:
        """All its parts."""
        return BPEParts(
            self.vocabulary,
            self.merges,
            self.special_tokens,
            self.splitter,
            self.add_prefix_space,
            self.foreign,
        )

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides about ids; equal fingerprints give equal ids."""
        return fingerprint_of(
            "bpe",
            [token.hex() for token in self.vocabulary],
            self.merges,
            sorted(self.special_tokens.items()),
            [self.splitter.pattern, self.add_prefix_space],
            *([] if self.foreign.plain else [self.foreign.parts()]),
        )

    def encode_array(self, text: Text, *, allowed_special: AllowedSpecial = ()) -> np.ndarray:
        """Token ids of `text` as a 1-D array of `self.dtype`, uint16 or uint32.

        Text that spells a special token is ordinary text, unless `allowed_special` contains that
        token or is "all". Added tokens that are not special are always matched. The ids are those
        of Hugging Face's `tokenizers`: with "all" those of its default, and without it those of
        `encode_special_tokens = True`.

        Raises `ValueError` (`UnicodeEncodeError`) for a string with lone surrogates, which is not
        Unicode text.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        else:
            text.encode("utf-8")
        parts: list[bytes] = []
        for piece, token in self._cut(text, allowed_special):
            parts += self._encoded([piece])
            if token is not None:
                parts.append(np.array(token, self.dtype).tobytes())
        return np.frombuffer(bytearray().join(parts), self.dtype)

    def _cut(self, text: str, allowed: AllowedSpecial) -> Iterator[tuple[str, int | None]]:
        """Yield (ordinary text, the id of the added token that ends it or None)."""
        if self._simple:
            for piece, name in self.cut_at_special(text, allowed):
                yield piece, self.special_tokens[name] if name else None
        else:
            names = self.allowed_names(allowed)
            yield from self._added.cut(text, names)

    def encode_blocks(self, blocks: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of a text that comes in blocks; holds one block at a time, see `PreSplitter`.

        A tokenizer that changes text, or finds tokens of its own in it, needs the whole text.
        """
        if not self._simple:
            yield self.encode_array("".join(blocks))
            return
        for encoded in self._encoded(blocks):
            yield np.frombuffer(bytearray(encoded), self.dtype)

    def _encoded(self, blocks: Iterable[str]) -> Iterator[bytes]:
        """The ids of a text without special tokens, as the bytes of arrays."""
        for pieces in self.splitter.split_blocks(self._with_prefix_space(blocks)):
            yield b"".join(map(self._cache.__getitem__, pieces))

    def _with_prefix_space(self, blocks: Iterable[str]) -> Iterator[str]:
        wanted = self.add_prefix_space
        for block in blocks:
            if wanted and block and not block.startswith(" "):
                yield " "
            wanted = wanted and not block
            yield block

    def encode_batch(
        self,
        texts: Iterable[Text],
        *,
        processes: int = 1,
        allowed_special: AllowedSpecial = (),
    ) -> list[list[int]]:
        """`encode` of each text, in order; by several processes if asked.

        Threads would not help, as Python's global lock is held throughout. Processes are
        started anew, so a script needs `if __name__ == "__main__":`. That takes about a second, in
        which several megabytes can be encoded, so processes pay from tens of megabytes on.
        """
        encode = partial(self.encode_array, allowed_special=allowed_special)
        if processes <= 1:
            return [encode(text).tolist() for text in texts]
        texts = list(texts)
        chunk = max(1, len(texts) // (4 * processes))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _keep, (encode,)) as pool:
            return [ids.tolist() for ids in pool.map(_encode_kept, texts, chunksize=chunk)]

    def __reduce__(self) -> tuple[Any, ...]:
        return BPETokenizer.from_parts, (self.parts,)

    def token_bytes(self, token: int) -> bytes:
        return self.vocabulary[token]

    def without(self, names: Sequence[str]) -> "BPETokenizer":
        """A tokenizer without these special tokens, which must have the highest ids."""
        kept = tuple(t for t in self.foreign.added_tokens if t.content not in names)
        vocabulary = self.vocabulary[: len(self.vocabulary) - len(names)]
        if {self.special_tokens[name] for name in names} != set(
            range(len(vocabulary), len(self.vocabulary))
        ):
            raise ValueError(f"{', '.join(names)} are not the tokens with the highest ids")
        frame = [token for side in self.frame for token in side]
        if frame and max(frame) >= len(vocabulary):
            raise ValueError("a token that goes around every text cannot be left out")
        special = {text: i for text, i in self.special_tokens.items() if text not in names}
        foreign = replace(self.foreign, added_tokens=kept)
        parts = self.parts._replace(vocabulary=vocabulary, special_tokens=special, foreign=foreign)
        return BPETokenizer.from_parts(parts)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a `tokenizer.json` that Hugging Face `tokenizers` loads, and a `.vocab` beside it.

        A folder gets the name `tokenizer.json`. Returns the path written.
        """
        return tokenizer_files.save(self.parts, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BPETokenizer":
        """Read a `tokenizer.json` of ours or Hugging Face's, or GPT-2's vocab.json + merges.txt.

        `path` is the file or its folder. Raises `ValueError` that says what is wrong with the file.
        """
        tokenizer = load_tokenizer(path)
        if not isinstance(tokenizer, BPETokenizer):
            kind = type(tokenizer).__name__
            raise ValueError(f"{path} holds a {kind}, not a BPE tokenizer; use load_tokenizer")
        return tokenizer


_kept_encode: Callable[[Text], np.ndarray]


def _keep(encode: Callable[[Text], np.ndarray]) -> None:
    """In a worker process: keep the encoder, so that it is sent only once."""
    global _kept_encode
    _kept_encode = encode


def _encode_kept(text: Text) -> np.ndarray:
    return _kept_encode(text)


def _number_of_merges(vocab_size: int | None, num_merges: int | None, special: int) -> int:
    if vocab_size is not None and num_merges is not None:
        raise ValueError("give vocab_size or num_merges, not both")
    if vocab_size is None:
        num_merges = DEFAULT_MERGES if num_merges is None else num_merges
        if num_merges < 0:
            raise ValueError(f"num_merges must not be negative: {num_merges}")
        return num_merges
    if vocab_size < 256 + special:
        raise ValueError(
            f"vocab_size {vocab_size} is too small: 256 bytes and {special} special tokens need "
            f"at least {256 + special}"
        )
    return vocab_size - 256 - special


def _documents(source: Source | Iterable[Source]) -> Iterator[Iterable[str]]:
    """Each document as an iterable of blocks of text."""
    if isinstance(source, str | bytes | os.PathLike | HasBlocks):
        source = [source]
    try:
        iter(source)
    except TypeError:
        raise TypeError(
            f"a {type(source).__name__} is no text, nor a list of texts, to learn from"
        ) from None
    for number, item in enumerate(source):
        if isinstance(item, str):
            yield [item]
        elif isinstance(item, bytes):
            yield [decode_utf8(item, f"text number {number}")]
        elif isinstance(item, os.PathLike):
            yield read_utf8_blocks(item)
        elif isinstance(item, HasBlocks):
            yield item.blocks()
        else:
            raise TypeError(
                f"text number {number} is a {type(item).__name__}: give str, bytes, pathlib.Path "
                "or a document"
            )


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Load whatever tokenizer the file (or the folder with a tokenizer.json) holds.

    `BPETokenizer`, `CharTokenizer`, or `OriginalTokenizer`.
    """
    found = tokenizer_files.read_any(path)
    return BPETokenizer.from_parts(found) if isinstance(found, BPEParts) else found
