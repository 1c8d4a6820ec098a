"""Applying merges to a word: the earliest learned first, the leftmost of equals first.

That is the order of training, so a word is split as its merges were learned. There are two ways to
the same result: `merge_word` is the rule itself and fastest for words; `merge_long_word` takes time
n log n, for texts without a space.
"""

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from tinyalpaca.tokenizer.bpe_training import Pair, to_bytes

LONG_WORD = 20  # tokens; from about here on the heap is faster
_NO_MERGE = 1 << 62


def merge_word(tokens: Sequence[int], ranks: dict[Pair, int], merged: Sequence[int]) -> list[int]:
    """Merge the tokens of a word: `ranks[a, b]` is a merge's place, `merged[rank]` its token."""
    tokens = list(tokens)
    rank_at = [ranks.get(pair, _NO_MERGE) for pair in pairwise(tokens)]
    while rank_at and (rank := min(rank_at)) != _NO_MERGE:
        i = rank_at.index(rank)
        tokens[i : i + 2] = [merged[rank]]
        del rank_at[i]
        if i > 0:
            rank_at[i - 1] = ranks.get((tokens[i - 1], tokens[i]), _NO_MERGE)
        if i < len(rank_at):
            rank_at[i] = ranks.get((tokens[i], tokens[i + 1]), _NO_MERGE)
    return tokens


def merge_long_word(
    tokens: Sequence[int], ranks: dict[Pair, int], merged: Sequence[int]
) -> list[int]:
    """The same with a heap of (rank, position) over a doubly linked list of positions."""
    tokens = list(tokens)
    end = len(tokens)
    left, right = list(range(-1, end - 1)), list(range(1, end + 1))
    heap = [(ranks[pair], place) for place, pair in enumerate(pairwise(tokens)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank, first = heapq.heappop(heap)
        second = right[first]
        if second == end or ranks.get((tokens[first], tokens[second])) != rank:
            continue  # one of the two has been merged since
        tokens[first], tokens[second] = merged[rank], -1
        before, after = left[first], right[second]
        right[first] = after
        if after < end:
            left[after] = first
            if (new := ranks.get((tokens[first], tokens[after]))) is not None:
                heapq.heappush(heap, (new, first))
        if before >= 0 and (new := ranks.get((tokens[before], tokens[first]))) is not None:
            heapq.heappush(heap, (new, before))
    return [token for token in tokens if token >= 0]


class WordCache(dict[str, bytes]):
    """Word -> the bytes of its array of token ids; a missing word is encoded on first sight.

    So a text is `b"".join(map(cache.__getitem__, words))`: one look-up a word, without Python code
    in between. It holds at most `max_words` words of at most `max_length` characters; when full, it
    is emptied. A word in `whole` has that token, whatever the merges would give.
    """

    token_of_byte: Sequence[int]
    ranks: dict[Pair, int]
    merged: Sequence[int]
    dtype: np.dtype
    max_words: int
    max_length: int

    def __init__(
        self,
        token_of_byte: Sequence[int],
        ranks: dict[Pair, int],
        merged: Sequence[int],
        dtype: np.dtype,
        max_words: int = 1 << 18,
        max_length: int = 64,
        whole: Mapping[bytes, int] | None = None,
    ) -> None:
        super().__init__()
        self.whole: Mapping[bytes, int] = whole or {}
        self.token_of_byte, self.ranks, self.merged = token_of_byte, ranks, merged
        self.dtype, self.max_words, self.max_length = dtype, max_words, max_length

    def __missing__(self, word: str) -> bytes:
        token = self.whole.get(to_bytes(word)) if self.whole else None
        if token is not None:
            return np.array([token], self.dtype).tobytes()
        tokens = [self.token_of_byte[byte] for byte in to_bytes(word)]
        if -1 in tokens:
            byte = to_bytes(word)[tokens.index(-1)]
            raise ValueError(
                f"this tokenizer has no token for byte 0x{byte:02x}, which {word[:40]!r} needs: it "
                "was trained without the full byte alphabet; train another, or leave that text out"
            )
        merge = merge_word if len(tokens) < LONG_WORD else merge_long_word
        encoded = np.array(merge(tokens, self.ranks, self.merged), self.dtype).tobytes()
        if len(word) <= self.max_length:
            if len(self) >= self.max_words:
                self.clear()
            self[word] = encoded
        return encoded
