"""Splitting text into pieces that merges never cross, and the printable alphabet of the bytes.

Byte-pair encoding on a whole text would learn tokens such as "e. The": frequent, but tied to
punctuation. So text is first split into words. Every splitter here is lossless: its pieces joined
are the text. A word includes the space *before* it, so that "the" and " the" are different words:

>>> PreSplitter("gpt2").split("Hark! who's there?")
['Hark', '!', ' who', "'s", ' there', '?']
>>> PreSplitter("whitespace").split("Hark! who's there?")
['Hark!', " who's", ' there?']
>>> PreSplitter("none").split("Hark! who's there?")
["Hark! who's there?"]

The rule called `gpt2` splits where GPT-2's tokenizer does (Radford et al., 2019, "Language Models
are Unsupervised Multitask Learners", section 2.2): between letters, numbers, other signs and white
space, all as Unicode defines them; English clitics are words of their own; in a run of white space
the last character belongs to what follows.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from typing import Any

import regex

from tinyalpaca.tokenizer.split_patterns import given_up, time_limit

BLOCK_CHARACTERS = 1 << 20

_CLITIC = r"'(?:[sdmt]|ll|ve|re)"
_SPACES = r"\s+(?!\S)|\s+"
PATTERNS = {
    "gpt2": rf"{_CLITIC}|\x20?\p{{L}}+|\x20?\p{{N}}+|\x20?[^\s\p{{L}}\p{{N}}]+|{_SPACES}",
    "whitespace": rf"\x20?\S+|{_SPACES}",
    "none": r"(?s:.+)",
}

# With a rule named above, a text may be cut before any white space that follows something else: no
# piece holds white space after another character, and none looks behind its own beginning.
_LAST_SAFE_CUT = regex.compile(r"(?r)(?<=\S)(?=\s)")


class PreSplitter:
    """Cuts text into words by a rule named in `PATTERNS`, or by a pattern of your own.

    A pattern of your own is written for the `regex` package; text between its matches is a piece.
    """

    def __init__(self, name: str = "gpt2", pattern: str | None = None) -> None:
        if pattern is None and name not in PATTERNS:
            raise ValueError(f"unknown pre-splitter {name!r}: choose from {', '.join(PATTERNS)}")
        self.name: str = name if pattern is None else "custom"
        self.pattern: str = PATTERNS[name] if pattern is None else pattern
        self.split: Callable[[str], list[str]] = self._compile()

    def _compile(self) -> Callable[[str], list[str]]:
        try:
            compiled = regex.compile(self.pattern)
        except regex.error as error:
            raise ValueError(f"pre-splitter pattern {self.pattern!r}: {error}") from None
        if self.name != "custom":
            return compiled.findall  # every character matches, so nothing is left out

        def split(text: str) -> list[str]:
            pieces, end = [], 0
            try:
                for match in compiled.finditer(text, timeout=time_limit(text)):
                    pieces += [text[end : match.start()], match[0]]
                    end = match.end()
            except TimeoutError:
                raise given_up(self.pattern, text) from None
            return [piece for piece in [*pieces, text[end:]] if piece]

        return split

    def __reduce__(self) -> tuple[Any, ...]:
        return PreSplitter, (self.name, self.pattern if self.name == "custom" else None)

    def split_blocks(self, blocks: Iterable[str]) -> Iterator[list[str]]:
        """The pieces of the text that `blocks` make up, as `split` of the whole text gives them.

        It works on a million characters at a time if the rule allows that. A text without white
        space, the rule `none` and patterns of your own need the whole text at once.
        """
        can_cut = self.name in ("gpt2", "whitespace")
        held: list[str] = []
        last = ""  # the character before the block, which decides about a cut at its beginning
        for block in chain.from_iterable(map(_parts, blocks)):
            cut = _LAST_SAFE_CUT.search(last + block) if can_cut else None
            if cut is None:
                held.append(block)
            else:
                end = cut.start() - len(last)
                yield self.split("".join(held) + block[:end])
                held = [block[end:]]
            last = block[-1:] or last
        yield self.split("".join(held))


def _parts(block: str) -> Iterator[str]:
    for start in range(0, len(block), BLOCK_CHARACTERS):
        yield block[start : start + BLOCK_CHARACTERS]


@cache
def byte_alphabet() -> tuple[str, ...]:
    """A printable character for each byte, as in GPT-2's files: index by byte value.

    Bytes that print in Latin-1 stand for themselves; the others get U+0100, U+0101, ... in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    characters = {value: chr(value) for value in printable}
    characters |= {value: chr(256 + index) for index, value in enumerate(others)}
    return tuple(characters[value] for value in range(256))


@cache
def bytes_in_token_order() -> bytes:
    """The 256 bytes in the order of their tokens 0 to 255: sorted by the character above.

    GPT-2 and the trainer of `tokenizers` number them so; ties between pairs are broken by number.
    """
    alphabet = byte_alphabet()
    return bytes(sorted(range(256), key=alphabet.__getitem__))
