"""Finding the matches of a pattern in a text as Hugging Face's `tokenizers` finds them."""

from collections.abc import Iterator, Mapping
from typing import Any

import regex

from tinyalpaca.tokenizer.pattern_dialect import translated

# A pattern that backtracks for too long is an error. Usual patterns take less
# than a thousandth of this.
SECONDS, CHARACTERS_A_SECOND = 5.0, 20_000

Span = tuple[int, int]


def time_limit(text: str) -> float:
    """How long a pattern may search a text, in seconds."""
    return SECONDS + len(text) / CHARACTERS_A_SECOND


def given_up(pattern: str, text: str) -> ValueError:
    """The error for a pattern that has exceeded its time."""
    return ValueError(
        f"the tokenizer's pattern {pattern!r} did not come to an end within "
        f"{time_limit(text):.0f} seconds on a text of {len(text):,} characters that begins "
        f"{text[:20]!r}: it tries too many ways to match. Use a tokenizer with another pattern"
    )


class Pattern:
    """An entry `pattern`, {"String": ...} or {"Regex": ...}.

    Raises:
        ValueError: it is neither, or has something that would mean something else here.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        if isinstance(content.get("String"), str):
            self.source: Any = content["String"]
            self._compiled = regex.compile(regex.escape(self.source))
        elif isinstance(content.get("Regex"), str):
            self.source = content["Regex"]
            try:
                self._compiled = regex.compile(translated(self.source))
            except ValueError as error:
                raise ValueError(
                    f"its pattern {self.source!r} is not supported, because of {error}"
                ) from None
        else:
            raise ValueError(f"a pattern {dict(content)!r} is neither a String nor a Regex")

    def spans(self, text: str) -> Iterator[tuple[int, int, bool]]:
        """(start, end, whether it is a match) of all matches and what lies between them."""
        end = 0
        for start, stop in self._matches(text):
            if start != end:
                yield end, start, False
            yield start, stop, True
            end = stop
        if end != len(text):
            yield end, len(text), False

    def replaced(self, text: str, replacement: str) -> str:
        """The text with every match replaced."""
        return "".join(replacement if hit else text[a:b] for a, b, hit in self.spans(text))

    def _matches(self, text: str) -> list[Span]:
        try:
            found = [m.span() for m in self._compiled.finditer(text, timeout=time_limit(text))]
            if all(start != end for start, end in found):
                return found
            return list(self._matches_with_empty_ones(text))
        except TimeoutError:
            raise given_up(self.source, text) from None

    def _matches_with_empty_ones(self, text: str) -> Iterator[Span]:
        """As the library: after an empty match at the end of the last one, skip one character."""
        place, last = 0, -1
        while place <= len(text):
            match = self._compiled.search(text, place, timeout=time_limit(text))
            if match is None:
                return
            if match.start() == match.end() == last:
                place += 1
            else:
                place = last = match.end()
                yield match.span()
