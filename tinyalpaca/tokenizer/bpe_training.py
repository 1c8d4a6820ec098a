"""Learning merges: the specification in twenty lines, and the trainer that is used.

Byte-pair encoding (Gage, 1994; Sennrich et al., 2016, "Neural Machine Translation of Rare Words
with Subword Units") starts from single bytes and repeats: find the pair of neighbouring tokens that
is most frequent, and make it a token. **Ties** go to the pair with the smaller left token id, then
the smaller right one, as in Hugging Face's `tokenizers`. Neighbours are counted at every position,
so the pair (a, a) occurs twice in "aaa", and is merged once, from the left. If a merge spells a
token that exists already, it leads to that token.

`learn_merges_naively` does just that and counts everything again for each merge. `learn_merges`
gives the same result from counts that it keeps up to date; tests compare the two.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np

from tinyalpaca.console import Bar
from tinyalpaca.tokenizer.pretokenize import PreSplitter, bytes_in_token_order

Pair = tuple[int, int]


def count_words(
    documents: Iterable[Iterable[str]], splitter: PreSplitter, progress: bool = False
) -> Counter[str]:
    """How often each piece occurs in the documents, each an iterable of blocks of its text."""
    words: Counter[str] = Counter()
    with progress_bar("words", progress) as bar:
        for blocks in documents:
            for pieces in splitter.split_blocks(blocks):
                words.update(pieces)
                bar.update(len(pieces))
    return words


def progress_bar(name: str, wanted: bool, total: int | None = None) -> Bar:
    """A bar that appears on a terminal, if wanted, when the work takes more than a second."""
    disable = None if wanted else True
    return Bar(desc=name, total=total, unit="", unit_scale=True, delay=1.0, disable=disable)


def learn_merges_naively(
    words: Mapping[str, int], num_merges: int, min_frequency: int = 1
) -> list[Pair]:
    """The specification: up to `num_merges` pairs of token ids, in the order they were merged."""
    byte_ids = {byte: token for token, byte in enumerate(bytes_in_token_order())}
    spelling = [bytes([byte]) for byte in byte_ids]
    split = [([byte_ids[byte] for byte in to_bytes(word)], n) for word, n in words.items()]
    merges: list[Pair] = []
    while len(merges) < num_merges:
        counts: Counter[Pair] = Counter()
        for tokens, count in split:
            for pair in pairwise(tokens):
                counts[pair] += count
        if not counts or max(counts.values()) < min_frequency:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(pair)
        token = add_token(spelling, spelling[pair[0]] + spelling[pair[1]])
        for tokens, _ in split:
            for i in range(len(tokens) - 1):
                if tuple(tokens[i : i + 2]) == pair:
                    tokens[i : i + 2] = [token]
    return merges


def add_token(spelling: list[bytes], token: bytes) -> int:
    """The id of `token`, a new one unless it is there already."""
    if token in spelling:
        return spelling.index(token)
    spelling.append(token)
    return len(spelling) - 1


def to_bytes(word: str) -> bytes:
    """UTF-8; bytes that were no UTF-8 come back from where `surrogateescape` put them."""
    return word.encode("utf-8", "surrogateescape")


def learn_merges(
    words: Mapping[str, int], num_merges: int, min_frequency: int = 1, progress: bool = False
) -> list[Pair]:
    """The same merges as `learn_merges_naively`, from counts kept up to date.

    The time of a merge is proportional to the number of positions where its pair occurs.
    """
    min_frequency = max(1, min_frequency)
    text = _MergedText(words)
    ids = {bytes([byte]): token for token, byte in enumerate(bytes_in_token_order())}
    spelling = list(ids)
    heap = [(-count, code) for code, count in text.counts.items()]
    heapq.heapify(heap)  # an entry whose count is out of date is corrected when it is popped
    merges: list[Pair] = []
    with progress_bar("merges", progress, num_merges) as bar:
        while heap and len(merges) < num_merges:
            negative, code = heapq.heappop(heap)
            count = text.counts.get(code, 0)
            if count != -negative:
                if count > 0:
                    heapq.heappush(heap, (-count, code))
                continue
            if count < min_frequency:
                break
            left, right = code >> 32, code & 0xFFFFFFFF
            merges.append((left, right))
            token = ids.setdefault(spelling[left] + spelling[right], len(spelling))
            if token == len(spelling):
                spelling.append(spelling[left] + spelling[right])
            for grown in text.merge(left, right, token):
                heapq.heappush(heap, (-text.counts[grown], grown))
            bar.update()
    return merges


class _MergedText:
    """All distinct words end to end as linked lists of tokens, with an index of pairs.

    Position p holds token `tokens[p]`; its neighbours in the word are `left[p]` and `right[p]`, -1
    at the ends. A merge keeps the left position and takes the right one out of the list.
    `weights[p]` is how often the word of p occurs. A pair (a, b) is known by its code `a << 32 |
    b`: `counts[code]` is its frequency and `places[code]` a list of arrays of positions that hold
    it, or have held it.
    """

    def __init__(self, words: Mapping[str, int]) -> None:
        spelled = [to_bytes(word) for word in words]
        lengths = np.array([len(word) for word in spelled], np.int64)
        token_of_byte = np.argsort(np.frombuffer(bytes_in_token_order(), np.uint8))
        self.tokens = token_of_byte[np.frombuffer(b"".join(spelled), np.uint8)].astype(np.int32)
        index = np.int32 if len(self.tokens) < 2**31 else np.int64
        self.left: np.ndarray = np.arange(-1, len(self.tokens) - 1, dtype=index)
        self.right: np.ndarray = np.arange(1, len(self.tokens) + 1, dtype=index)
        ends = np.cumsum(lengths)[lengths > 0]
        self.left[ends - lengths[lengths > 0]] = -1
        self.right[ends - 1] = -1
        self.weights = np.repeat(np.fromiter(words.values(), np.int64, len(words)), lengths)
        self.counts: dict[int, int] = {}
        self.places: dict[int, list[np.ndarray]] = {}
        starts = np.flatnonzero(self.right >= 0).astype(index)
        self._add(starts)

    def _codes(self, places: np.ndarray) -> np.ndarray:
        """The codes of the pairs that begin at these positions."""
        return self.tokens[places].astype(np.int64) << 32 | self.tokens[self.right[places]]

    def _group(self, places: np.ndarray) -> tuple[list[int], list[int], list[np.ndarray]]:
        """The distinct pairs at these positions: their codes, frequencies and positions."""
        if not len(places):
            return [], [], []
        codes = self._codes(places)
        order = np.argsort(codes, kind="stable")
        codes, places = codes[order], places[order]
        starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
        frequencies = np.add.reduceat(self.weights[places], starts)
        bounds = [*starts.tolist(), len(places)]
        groups = [places[a:b] for a, b in pairwise(bounds)]
        return codes[starts].tolist(), frequencies.tolist(), groups

    def _add(self, places: np.ndarray) -> list[int]:
        codes, frequencies, groups = self._group(places)
        for code, frequency, group in zip(codes, frequencies, groups, strict=True):
            self.counts[code] = self.counts.get(code, 0) + frequency
            self.places.setdefault(code, []).append(group)
        return codes

    def _remove(self, places: np.ndarray) -> None:
        codes, frequencies, _ = self._group(places)
        for code, frequency in zip(codes, frequencies, strict=True):
            self.counts[code] -= frequency
            if not self.counts[code]:
                del self.counts[code], self.places[code]

    def merge(self, a: int, b: int, token: int) -> list[int]:
        """Replace every pair (a, b) by `token`; return the codes of the pairs that became more."""
        code = a << 32 | b
        first = np.unique(np.concatenate(self.places[code]))  # sorted; some are out of date
        second = self.right[first]
        holds = (self.tokens[first] == a) & (second >= 0) & (self.tokens[second] == b)
        first = first[holds]
        if a == b:
            first = self._every_other(first)
        second = self.right[first]
        before, after = self.left[first], self.right[second]
        # Where the pair follows itself, (a b)(a b), the pair between the two is counted once.
        lone = before >= 0
        lone[1:] &= second[:-1] != before[1:]
        before = before[lone]
        self._remove(np.concatenate((first, before, second[after >= 0])))

        self.tokens[first] = token
        self.tokens[second] = -1
        self.right[first] = after
        self.left[after[after >= 0]] = first[after >= 0]
        return self._add(np.concatenate((before, first[after >= 0])))

    def _every_other(self, places: np.ndarray) -> np.ndarray:
        """Of adjacent positions, such as those of (a, a) in "aaaa": the first, the third, ..."""
        index = np.arange(len(places))
        begins = np.ones(len(places), bool)
        begins[1:] = self.right[places[:-1]] != places[1:]
        return places[(index - np.maximum.accumulate(index * begins)) % 2 == 0]
