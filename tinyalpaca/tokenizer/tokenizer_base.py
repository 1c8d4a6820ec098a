"""The methods of all tokenizers, and decoding token by token."""

import codecs
import hashlib
import json
import operator
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

AllowedSpecial = Collection[str] | Literal["all"]
END_OF_TEXT = "<|endoftext|>"
FILE_NAME = "tokenizer.json"


def fingerprint_of(*parts: object) -> str:
    """SHA-256 (hexadecimal) of the parts, written as JSON."""
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def file_to_write(path: str | os.PathLike[str]) -> Path:
    """The file that `save` writes: `path`, or the usual name in it if it is a folder."""
    path = Path(path)
    return path / FILE_NAME if path.is_dir() else path


def require_text(source: object) -> None:
    """Raise ValueError if `source` is the name of a file, which would be learned as a text."""
    if isinstance(source, str) and re.fullmatch(r"[\w./\\:~-]+\.(txt|md|json|csv|html?)", source):
        raise ValueError(
            f"{source!r} is the name of a file, not its text: give pathlib.Path({source!r}) to a "
            "BPETokenizer, or the text that it holds"
        )


class Tokenizer(ABC):
    """Text to token ids and back. `dtype` is the smallest unsigned type that holds every id."""

    dtype: np.dtype
    special_tokens: dict[str, int]
    # The ids that a model expects before and after those of a text, if any.
    frame: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens; ids run from 0 to `vocab_size - 1`."""

    @property
    def end_token(self) -> int | None:
        """The token between texts, `<|endoftext|>`."""
        return self.special_tokens.get(END_OF_TEXT)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of all that decides about ids."""

    @abstractmethod
    def encode_array(
        self, text: str | bytes, *, allowed_special: AllowedSpecial = ()
    ) -> np.ndarray:
        """Token ids as a 1-D array of `dtype`: for whole corpora."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; `token` is in range."""

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the tokenizer so that `load_tokenizer` reads it again; returns the path written."""

    def encode_blocks(self, blocks: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of a text that comes in blocks, as arrays: for texts larger than memory.

        Joined, they are `encode_array` of the blocks joined. This default needs the whole text.
        """
        yield self.encode_array("".join(blocks))

    def encode(
        self,
        text: str | bytes,
        *,
        allowed_special: AllowedSpecial = (),
        add_special_tokens: bool = False,
    ) -> list[int]:
        """Token ids of `text`; the inverse of `decode`.

        `add_special_tokens` adds those around it that the tokenizer's file asks for (`frame`).
        """
        if not isinstance(text, str | bytes):
            raise TypeError(
                f"encode() is given one text, a str, not a {type(text).__name__}; encode_batch() "
                "of a BPETokenizer is given several"
            )
        ids = self.encode_array(text, allowed_special=allowed_special).tolist()
        before, after = self.frame if add_special_tokens else ((), ())
        return [*before, *ids, *after]

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The exact bytes.

        Raises:
            TypeError: the tokens are not a sequence of integers.
            ValueError: an id is outside the vocabulary.
        """
        tokens = tokens.tolist() if isinstance(tokens, np.ndarray) else tokens
        try:
            ids = [*map(operator.index, tokens)]
        except TypeError as error:
            raise TypeError(f"tokens are integers in one list or array: {error}") from None
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = next(token for token in ids if not 0 <= token < self.vocab_size)
            raise ValueError(
                f"token id {wrong} is out of range: the vocabulary has {self.vocab_size} tokens, "
                f"0 to {self.vocab_size - 1}"
            )
        return b"".join(map(self.token_bytes, ids))

    def decode(self, tokens: Iterable[int], errors: str = "replace") -> str:
        """The text. Bytes that are not UTF-8, such as half a character, become U+FFFD.

        `errors="strict"` raises instead.
        """
        return self.decode_bytes(tokens).decode("utf-8", errors)

    def decoder(self) -> "StreamingDecoder":
        """A decoder of tokens one by one, which never returns half a character."""
        return StreamingDecoder(self)

    def allowed_names(self, allowed: AllowedSpecial) -> Collection[str]:
        """The special tokens that `allowed` means. Raises `ValueError` for one that is none."""
        names = self.special_tokens if allowed == "all" else allowed
        unknown = [name for name in names if name not in self.special_tokens]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is not a special token of this tokenizer, which has: "
                f"{', '.join(map(repr, self.special_tokens)) or 'none'}"
            )
        return names

    def cut_at_special(self, text: str, allowed: AllowedSpecial) -> Iterator[tuple[str, str]]:
        """Yield (ordinary text, the special token that ends it or "")."""
        names = self.allowed_names(allowed)
        if names:
            pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
            end = 0
            for match in re.finditer(pattern, text):
                yield text[end : match.start()], match[0]
                end = match.end()
            text = text[end:]
        yield text, ""


class StreamingDecoder:
    """Decodes a stream of tokens: what `feed` and `finish` return, joined, is `decode` of all."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, *tokens: int) -> str:
        """The characters that these tokens complete; "" while one is still incomplete."""
        return self._decoder.decode(self._tokenizer.decode_bytes(tokens))

    def finish(self) -> str:
        """U+FFFD if the stream ended inside a character, else ""; the decoder can be used again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
