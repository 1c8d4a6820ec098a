"""`OriginalTokenizer`: vocabulary files of the original, so that its models can be used.

The file is a JSON object from id to token text, `{"0": "▁", "1": "[UNK]", ...}`. A space is written
`▁`. It does not contain the merges, so text is split greedily: at each position into the longest
token that fits, or `[UNK]` for one character if none fits. So unknown characters are lost. Use it
for published models, not for new ones.
"""

import json
import os
import re
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
)

SPACE = "▁"
UNKNOWN = "[UNK]"


class OriginalTokenizer(Tokenizer):
    """Greedy longest match over `tokens[id]`; of equal texts the one with the lowest id."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.special_tokens: dict[str, int] = {}
        self.dtype: np.dtype = np.dtype(np.uint16 if len(tokens) <= 1 << 16 else np.uint32)
        self._ids = {token: index for index, token in reversed(list(enumerate(tokens)))}
        longest_first = sorted((token for token in self._ids if token), key=len, reverse=True)
        self._match = re.compile("|".join([*map(re.escape, longest_first), "(?s:.)"])).findall

    @classmethod
    def from_json(cls, content: dict[str, Any], name: str) -> "OriginalTokenizer":
        """From the JSON object; `name` is for error messages."""
        tokens = {int(key): token for key, token in content.items()}
        for index in range(len(tokens)):
            if not isinstance(tokens.get(index), str):
                raise ValueError(f"{name}: the vocabulary has no text for id {index}")
        return cls([tokens[index] for index in range(len(tokens))])

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of("original", self.tokens)

    def encode_array(
        self, text: str | bytes, *, allowed_special: AllowedSpecial = ()
    ) -> np.ndarray:
        """Token ids, one `[UNK]` for each character that no token begins with."""
        if isinstance(text, bytes):
            text = decode_utf8(text, "the text")
        [(text, _)] = self.cut_at_special(text, allowed_special)
        matches = self._match(text.replace(" ", SPACE))
        unknown = self._ids.get(UNKNOWN)
        ids = [self._ids.get(match, unknown) for match in matches]
        if None in ids:
            raise ValueError(
                f"the vocabulary has no token for {matches[ids.index(None)]!r}, and no {UNKNOWN}"
            )
        return np.array(ids, self.dtype)

    def token_bytes(self, token: int) -> bytes:
        text = self.tokens[token]
        return b"" if text == UNKNOWN else text.replace(SPACE, " ").encode("utf-8", "surrogatepass")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the vocabulary as the original does; a folder gets the name `tokenizer.json`."""
        path = file_to_write(path)
        content = {str(index): token for index, token in enumerate(self.tokens)}
        write_text_atomically(
            path, json.dumps(content, ensure_ascii=False, indent=2), make_folders=True
        )
        return path
