"""From tokens to batches: windows of a dataset.

>>> tokens = np.arange(10)
>>> dataset = TinyPacaDataset(tokens, seq_len=4)
>>> len(dataset), dataset[1]
(2, (array([4, 5, 6]), array([5, 6, 7])))

A dataset turns indices into batches and has no state. A sampler decides which indices come next and
has all the state. So a batch depends only on (seed, epoch, position).
"""

from collections.abc import Sequence

import numpy as np

READ_AT_A_TIME = 1 << 20  # tokens, so that a large mapped file need not fit the memory
Batch = tuple[np.ndarray, np.ndarray]


class _Windows:
    """Windows of `seq_len` adjacent tokens: x is all but the last token, y all but the first."""

    def __init__(self, tokens: np.ndarray | Sequence[int], seq_len: int) -> None:
        self.tokens: np.ndarray = tokens if isinstance(tokens, np.ndarray) else np.asarray(tokens)
        self.seq_len = seq_len
        if self.tokens.ndim != 1 or not np.issubdtype(self.tokens.dtype, np.integer):
            raise ValueError(
                f"tokens must be a 1-D array of integers, not {self.tokens.dtype} of shape "
                f"{self.tokens.shape}"
            )
        if seq_len < 2:
            raise ValueError(f"seq_len must be at least 2, a token and the next: {seq_len}")
        if len(self.tokens) < seq_len:
            raise ValueError(
                f"a sequence of {seq_len} tokens is longer than the data, which has "
                f"{len(self.tokens)}: use a longer text or a smaller seq_len"
            )

    def _gather(self, starts: np.ndarray) -> Batch:
        """x and y, (B, seq_len - 1) int64 each, of the windows that begin at `starts` (B,)."""
        windows = self.tokens[starts[:, None] + np.arange(self.seq_len)]  # (B, seq_len)
        windows = windows.astype(np.int64)
        return windows[:, :-1], windows[:, 1:]

    @property
    def _stride(self) -> int:
        """Tokens from the beginning of a window to that of the next."""
        raise NotImplementedError

    def __len__(self) -> int:
        return (len(self.tokens) - self.seq_len) // self._stride + 1

    def batch_at(self, indices: np.ndarray | Sequence[int]) -> Batch:
        """x and y, (B, seq_len - 1) int64 each; `indices` (B,) are from 0 to `len(self) - 1`."""
        return self._gather(self.starts_at(indices))

    def starts_at(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """The first token (B,) of the windows with these indices (B,)."""
        indices = np.asarray(indices, np.int64).reshape(-1)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            wrong = indices[(indices < 0) | (indices >= len(self))][0]
            raise IndexError(f"window {wrong} is out of range: there are {len(self)}")
        return indices * self._stride

    def targets_among(self, vocab_size: int) -> np.ndarray:
        """(V,) whether a token is among the y of any window; reads all tokens once."""
        found = np.zeros(vocab_size, bool)
        stride, end = self._stride, (len(self) - 1) * self._stride + self.seq_len
        for start in range(0, end, READ_AT_A_TIME):
            part = self.tokens[start : min(end, start + READ_AT_A_TIME)]
            places = np.arange(start, start + len(part))
            if stride >= self.seq_len:  # else only the very first token is not predicted
                places %= stride
                places[places >= self.seq_len] = 0
            found[part[places > 0]] = True
        return found

    def __getitem__(self, index: int) -> Batch:
        """x and y of one window, (seq_len - 1,) each; negative indices count from the end."""
        index = index + len(self) if index < 0 else index
        x, y = self.batch_at([index])
        return x[0], y[0]


class TinyPacaDataset(_Windows):
    """Adjacent windows without overlap. The name is that of the original's class.

    A window of `seq_len` tokens has `seq_len - 1` predictions: 127 for 128. Tokens after the last
    full window are not used. (The original also drops the last window if it ends with the text.)
    """

    @property
    def _stride(self) -> int:
        return self.seq_len


class RandomWindows(_Windows):
    """A window at every token; use it with `RandomSampler` or `ShiftedSampler`."""

    @property
    def _stride(self) -> int:
        return 1
