"""`CharTokenizer`: a token for each character of the training text, and nothing else."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.storage import write_text_atomically
from tinyalpaca.text_files import decode_utf8
from tinyalpaca.tokenizer.tokenizer_base import (
    AllowedSpecial,
    Tokenizer,
    file_to_write,
    fingerprint_of,
    require_text,
)

FORMAT = "tinyalpaca.CharTokenizer"


class CharTokenizer(Tokenizer):
    """Ids are the ranks of the characters in code point order; special tokens follow.

    >>> tokenizer = CharTokenizer.train("hello")
    >>> tokenizer.encode("hole")
    [1, 3, 2, 0]

    A character that is not in the training text is an error; `BPETokenizer` accepts any text.
    """

    def __init__(self, characters: str, special_tokens: Sequence[str] = ()) -> None:
        if len(set(characters)) != len(characters):
            raise ValueError("the characters of a CharTokenizer must be different")
        self.characters = characters
        self._tokens = [*characters, *special_tokens]
        self.special_tokens: dict[str, int] = {
            token: len(characters) + index for index, token in enumerate(special_tokens)
        }
        self._ids = {ord(character): index for index, character in enumerate(characters)}
        self.dtype: np.dtype = np.dtype(np.uint16 if len(self._tokens) <= 1 << 16 else np.uint32)

    @classmethod
    def train(
        cls, texts: str | Iterable[str], special_tokens: Sequence[str] = ()
    ) -> "CharTokenizer":
        """One token for each character in a text, or in any of several."""
        require_text(texts)
        seen: set[str] = set()
        for text in [texts] if isinstance(texts, str) else texts:
            seen.update(text)
        if not seen:
            raise ValueError("there is no text to train a tokenizer on: the source is empty")
        return cls("".join(sorted(seen)), special_tokens)

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of("characters", self._tokens, len(self.characters))

    def encode_array(
        self, text: str | bytes, *, allowed_special: AllowedSpecial = ()
    ) -> np.ndarray:
        """Token ids. Raises `ValueError` that names a character without a token."""
        if isinstance(text, bytes):
            text = decode_utf8(text, "the text")
        parts = []
        start = 0
        for piece, special in self.cut_at_special(text, allowed_special):
            points = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), "<u4")
            unique, inverse = np.unique(points, return_inverse=True)
            ids = [self._ids.get(point, -1) for point in unique.tolist()]
            if -1 in ids:
                place = int(np.isin(points, unique[np.array(ids) < 0]).argmax())
                raise ValueError(
                    f"character {piece[place]!r} at position {start + place} was not in the text "
                    "that this CharTokenizer was trained on; BPETokenizer takes any text"
                )
            parts.append(np.array(ids, self.dtype)[inverse])
            if special:
                parts.append(np.array([self.special_tokens[special]], self.dtype))
            start += len(piece) + len(special)
        return np.concatenate(parts)

    def encode_blocks(self, blocks: Iterable[str]) -> Iterator[np.ndarray]:
        """One block at a time."""
        return map(self.encode_array, blocks)

    def token_bytes(self, token: int) -> bytes:
        return self._tokens[token].encode("utf-8", "surrogatepass")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a small JSON file; a folder gets the name `tokenizer.json`."""
        path = file_to_write(path)
        content = {
            "format": FORMAT,
            "version": 1,
            "characters": self.characters,
            "special_tokens": list(self.special_tokens),
        }
        write_text_atomically(path, json.dumps(content, indent=1) + "\n", make_folders=True)
        return path

    @classmethod
    def from_json(cls, content: dict[str, Any], name: str) -> "CharTokenizer":
        """From what `save` wrote; `name` is for error messages."""
        characters, special = content.get("characters"), content.get("special_tokens", [])
        if content.get("version") != 1 or not isinstance(characters, str):
            raise ValueError(f"{name} is not a CharTokenizer file of version 1")
        return cls(characters, special)
