"""The window of a growing sequence that the model sees.

Beyond the context length L the window moves in jumps of L/2. Cached keys depend on positions in the
window, so they can be kept until the next jump. Of n tokens the model sees those from
`window_start(n, L)` on, between L/2 and L of them. The start depends on n alone.
"""

from __future__ import annotations

from collections.abc import Sequence

Tokens = list[int]


def window_start(length: int, context: int) -> int:
    """The index of the first token that a model with this context length sees.

    >>> [window_start(n, 8) for n in (1, 8, 9, 12, 13)]
    [0, 0, 4, 4, 8]
    """
    jump = (context + 1) // 2
    return max(0, -(-(length - context) // jump) * jump)


class Windows:
    """The windows of some sequences, for a decoder that caches keys and values.

    Args:
        sequences: token ids, at least one each; the caller appends to these lists.
        context: L.

    Attributes:
        starts: where each window begins; -1 before the first `slide`.
    """

    sequences: list[Tokens]
    context: int

    def __init__(self, sequences: Sequence[Tokens], context: int) -> None:
        self.sequences, self.context = list(sequences), context
        self.starts: list[int] = [-1] * len(self.sequences)

    def slide(self) -> list[int]:
        """Move the windows that are full. Returns the rows that moved, at the first call all."""
        late = []
        for row, (tokens, start) in enumerate(zip(self.sequences, self.starts, strict=True)):
            if start < 0 or len(tokens) - start > self.context:
                self.starts[row] = window_start(len(tokens), self.context)
                late.append(row)
        return late

    def before_last(self, row: int) -> Tokens:
        """A window without its last token."""
        return self.sequences[row][self.starts[row] : -1]

    def last(self) -> tuple[list[int], list[int]]:
        """The last token of each sequence, and its position in the window."""
        both = zip(self.sequences, self.starts, strict=True)
        return [t[-1] for t in self.sequences], [len(t) - 1 - start for t, start in both]

    def remove(self, row: int) -> None:
        """Remove a sequence; the last one takes its place."""
        self.sequences[row], self.starts[row] = self.sequences[-1], self.starts[-1]
        del self.sequences[-1], self.starts[-1]
