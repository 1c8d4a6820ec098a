"""Text from tokens as they come: never half a character, and nothing of a stop string.

The text ends before the stop string that is complete first; of several that are complete with the
same character, before the longest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tinyalpaca.tokenizer import Tokenizer


class TextStream:
    """Decodes tokens one by one and ends the text before a stop string or an end token.

    Text that may be the beginning of a stop string is held back until that is decided.

    Args:
        tokenizer: whose tokens they are.
        stop: where to end the text; a string or several, none empty.
        ends: tokens that end the text; they are not part of it.

    Attributes:
        ends: as given.
        stops: the stop strings.
        stopped: whether a stop string or the end has come; the text ends before it.

    Raises:
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
        self.stops: list[str] = [stop] if isinstance(stop, str) else list(stop or ())
        if "" in self.stops:
            raise ValueError("a stop string is empty: it would end every text before it begins")
        self._held = ""
        self.stopped: bool = False

    def feed(self, *tokens: int) -> str:
        """What is certain to belong to the text now, maybe an empty string."""
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
        """The place of the first token that ends the text, or None."""
        if not self.ends:
            return None
        return next((n for n, token in enumerate(tokens) if token in self.ends), None)

    def begin_inside(self, tokens: Iterable[int]) -> None:
        """Say that the text goes on from tokens that end inside a character.

        That character, once it is complete, is the first of this text.
        """
        self._decoder.feed(*tokens)

    def finish(self, *, drop: bool = False) -> str:
        """What was held back, and U+FFFD if the text ends inside a character (`drop`: nothing)."""
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
    """How many characters at the end of `text` are the beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
