"""Added tokens: texts that are single tokens wherever they occur, as in Hugging Face's tokenizers.

A *special* token (`<|endoftext|>`) is a sign between programs: in text it is matched only if the
caller allows it. Other added tokens (`"special": false`, often added for fine-tuning) are always
matched. If several begin at the same position, the longest is matched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import regex

from tinyalpaca.tokenizer.normalizers import Normalize

# As the Rust crate `regex` has them.
_WORD_AT_END = regex.compile(r"\w\Z")
_WORD_AT_START = regex.compile(r"\w")
_SPACE_AT_START = regex.compile(r"\s*")
_SPACE_AT_END = regex.compile(r"(?r)\s*")


class AddedToken(NamedTuple):
    """An entry of `added_tokens`.

    Attributes:
        single_word: matched only where no word character touches it.
        lstrip, rstrip: includes the white space before, after it.
        normalized: matched in the normalized text; else in the text as it is, and first.
        special: matched only where it is allowed.
        in_vocabulary: whether the file's vocabulary has it too.
    """

    content: str
    id: int
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = True
    in_vocabulary: bool = True

    @property
    def plain(self) -> bool:
        """Whether it is a special token such as our own tokenizers have."""
        return self == AddedToken(self.content, self.id)


class AddedTokens:
    """Cuts a text at added tokens, and normalizes what lies between them."""

    def __init__(self, tokens: Sequence[AddedToken], normalize: Normalize | None = None) -> None:
        self._normalize = normalize
        special_first = sorted(tokens, key=lambda token: not token.special)
        self._raw = _Matcher([(t.content, t) for t in special_first if not t.normalized])
        self._normalized = _Matcher(
            [
                (normalize(t.content) if normalize else t.content, t)
                for t in special_first
                if t.normalized
            ]
        )

    def cut(self, text: str, allowed: Collection[str]) -> Iterator[tuple[str, int | None]]:
        """Yield (ordinary text, None) and ("", the id of an added token), in their order.

        Args:
            allowed: the special tokens that count.
        """
        for piece, token in self._raw.cut(text, allowed):
            if token is not None:
                yield "", token
                continue
            if self._normalize is not None:
                piece = self._normalize(piece)
            yield from self._normalized.cut(piece, allowed)


class _Matcher:
    """Finds texts, the leftmost first and of those the longest."""

    def __init__(self, tokens: Sequence[tuple[str, AddedToken]]) -> None:
        self._tokens: dict[str, AddedToken] = {}
        for text, token in tokens:
            if not text:
                raise ValueError(f"the added token {token.content!r} is normalized to nothing")
            if text in self._tokens:
                raise ValueError(
                    f"the added tokens {self._tokens[text].content!r} and {token.content!r} are "
                    "normalized to the same text, of which Hugging Face's library takes one by "
                    "chance"
                )
            self._tokens[text] = token
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._compiled = regex.compile("|".join(map(regex.escape, longest_first)))

    def cut(self, text: str, allowed: Collection[str]) -> Iterator[tuple[str, int | None]]:
        """As `AddedTokens.cut`. If two tokens claim the same white space, the library does
        something odd, which is copied here: the second claims it again, or is not matched.
        """
        if not text:
            return
        end = 0
        for match in self._compiled.finditer(text) if self._tokens else ():
            token = self._tokens[match[0]]
            start, stop = match.span()
            if token.special and token.content not in allowed:
                continue
            if token.single_word and (
                _WORD_AT_END.search(text[start - 1 : start]) or _WORD_AT_START.match(text, stop)
            ):
                continue
            if token.lstrip:
                start = max(_SPACE_AT_END.match(text, 0, start).start(), end)
            if token.rstrip:
                stop = _SPACE_AT_START.match(text, stop).end()
            if end < start:
                yield text[end:start], None
            if start < stop:  # else the last token has taken it
                yield "", token.id
            end = stop
        if end < len(text):
            yield text[end:], None
