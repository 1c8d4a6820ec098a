"""Noticing that memory was changed after a graph has read it.

A graph saves arrays without copying them, so a write to one between the forward and the backward
pass makes the gradient wrong. Tensors over the same memory share one `Version`:

- Every change through the tensor itself (in-place operators, `x[i] = v`, `x.data = a`,
  `x.data -= 1`, `assign`, optimizers) increments `number`. A node remembers the number at its time.
- Memory can also be written from outside: through the array that `.data` or `.numpy()` has handed
  out, or through the NumPy array that a tensor was made from. Such writes are not counted, so a
  checksum finds them. It is computed when a node reads such memory (or, if a node has read it
  already, when the array is handed out), and again in the backward pass.

The cost: counting is one addition. A checksum reads its array once, at about 10 GB/s, and there are
two for each op that reads an array to which other code has access. Arrays that only the engine
uses, as in a training run, cost nothing. Checksums are only for memory on the CPU: on a GPU, call
`Tensor.changed()` after writing to the array of `.data`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

_COLUMNS = 257, 509  # primes, so that only places a whole block apart share a column of both
_BLOCK = 257 * 509
_SMALL = 16_384  # bytes up to which Python's hash is as quick as a sum
_MOST = 64  # views of one memory that are watched one by one


class Version:
    """What is known about the memory that one or several tensors share.

    Attributes:
        number: how many changes were counted.
        read: whether a node has read the memory (or saved it).
        outside: whether code outside of the engine can write to it.
        watched: arrays that were handed out after a node had read the memory, with checksums.
    """

    __slots__ = ("number", "outside", "read", "watched")

    def __init__(self, number: int = 0, outside: bool = False) -> None:
        self.number: int = number
        self.outside: bool = outside
        self.read: bool = False
        self.watched: dict[int, Seen] | None = None

    def __reduce__(self) -> Any:
        return Version, ()  # a copy has memory of its own

    def hand_out(self, array: Any) -> None:
        """Called when `array`, which is in this memory, is given to code outside of the engine."""
        if not self.outside:
            self.outside = True
            if self.read:
                self.watched = {}
        if self.watched is None or not isinstance(array, np.ndarray):
            return
        while len(self.watched) >= _MOST and isinstance(array.base, np.ndarray):
            array = array.base
        known = self.watched.get(id(array))
        if known is None or known.array() is not array:
            self.watched[id(array)] = Seen(array)

    def untouched(self) -> bool:
        """Whether all arrays that were handed out are unchanged."""
        watched = list((self.watched or {}).values())  # other threads may add to it meanwhile
        return all(seen.untouched() for seen in watched)


class Seen:
    """An array and its checksum at one time. An array that owns its memory is not kept alive."""

    __slots__ = ("array", "before")

    def __init__(self, array: np.ndarray) -> None:
        self.array: Callable[[], np.ndarray | None] = (
            weakref.ref(array) if array.base is None else lambda: array
        )
        self.before: int = checksum(array)

    def untouched(self) -> bool:
        """Whether it is unchanged, according to the checksum."""
        array = self.array()
        return array is None or checksum(array) == self.before


def checksum(array: np.ndarray) -> int:
    """A number that almost certainly changes when the content of `array` changes.

    Words of 64 bits are arranged in columns, and each column is summed modulo 2^64, which detects a
    change of any one word. Then they are arranged in columns of another length, so that two words
    that are exchanged are in different columns of one of the two arrangements. This holds for as
    many words as the product of both lengths, so larger arrays are summed in blocks of that size.
    """
    if array.nbytes <= _SMALL:
        return hash(array.tobytes())
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    whole = flat.size // 8 * 8
    words = flat[:whole].view(np.uint64)
    sums = [flat[whole:].tobytes()]
    for start in range(0, words.size, _BLOCK):
        block = words[start : start + _BLOCK]
        for columns in _COLUMNS:
            even = block.size // columns * columns
            sums.append(np.add.reduce(block[:even].reshape(-1, columns), axis=0).tobytes())
            sums.append(block[even:].tobytes())
    return hash(b"".join(sums))


__all__ = [
    "Seen",
    "Version",
    "checksum",
]
