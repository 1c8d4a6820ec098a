"""Decodes tokens as they come: never half a character, and never a part of a stop string.

The text ends before the stop string that is complete first. If several end with the same character,
it ends before the longest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tinyalpaca.tokenizer import Tokenizer


class TextStream:
    """Decodes tokens one by one and ends the text before a stop string or an end token.

    Text that may be the beginning of a stop string is held back until that is decided.

    Args:
        tokenizer: decodes the tokens.
        stop: a stop string or several, none empty.
        ends: tokens that end the text; they are not part of it.

    Attributes:
        ends: as given.
        stops: the stop strings.
        stopped: whether a stop string or an end token has come; the text ends before it.

    Raises:
        TypeError: a stop string is no text.
        ValueError: a stop string is empty.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: str | Iterable[str] | None = None,
        ends: Collection[int] = (),
    ) -> None:
        self._decoder = tokenizer.decoder()
        self.ends: frozenset[int] = frozenset(ends)
        self.stops: list[str] = texts_of(stop)
        if "" in self.stops:
            raise ValueError("a stop string is empty: it would end every text before it begins")
        self._held = ""
        self.stopped: bool = False

    def feed(self, *tokens: int) -> str:
        """Add tokens; returns the new text that is certain, which may be empty."""
        end = self.first_end(tokens)
        if end is not None:
            before = tokens[:end]
            text = self.feed(*before)
            if not self.stopped:
                text += self.finish()
            self.stopped = True
            return text
        piece = self._decoder.feed(*tokens)
        return self._release(piece) if self.stops and piece else piece

    def first_end(self, tokens: Iterable[int]) -> int | None:
        """The index of the first token that ends the text, or None."""
        if not self.ends:
            return None
        return next((n for n, token in enumerate(tokens) if token in self.ends), None)

    def begin_inside(self, tokens: Iterable[int]) -> None:
        """Start after tokens that end inside a character.

        That character, once it is complete, is the first of this text.
        """
        self._decoder.feed(*tokens)

    def finish(self, *, drop: bool = False) -> str:
        """The text that was held back, plus U+FFFD if it ends inside a character and not `drop`."""
        if self.stopped:
            return ""
        rest = self._decoder.finish()
        if drop:
            rest = ""
        if not self.stops:
            return rest
        released = self._release(rest)
        held, self._held = self._held, ""
        return released if self.stopped else released + held

    def _release(self, piece: str) -> str:
        text = self._held + piece
        places = [(text.find(stop), len(stop)) for stop in self.stops]
        found = [(place + length, place) for place, length in places if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        held = max(_overlap(text, stop) for stop in self.stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """The number of characters at the end of `text` with which `stop` begins."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def texts_of(stop: str | Iterable[str] | None) -> list[str]:
    """One text at which to stop, or several, as a list; TypeError for anything else."""
    stops = [stop] if isinstance(stop, str) or not isinstance(stop, Iterable) else list(stop)
    if wrong := [text for text in stops if text is not None and not isinstance(text, str)]:
        raise TypeError(f"stop must be a text, or a list of texts, not {wrong[0]!r}")
    return [text for text in stops if text is not None]
