"""The registry of test cases for ops (see `cases`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from minigrad import Tensor


@dataclass(frozen=True)
class Case:
    """One way to use an op.

    Attributes:
        op: its name in `minigrad.ops.TEXTBOOK`.
        label: the name of this case.
        public: the function of `minigrad` that is called.
        function: calls it on tensors.
        arrays: the inputs of the function.
    """

    op: str
    label: str
    public: str
    function: Callable[..., Tensor]
    arrays: tuple[np.ndarray, ...]

    def tensors(self, layout: Callable[[np.ndarray], np.ndarray] = np.array) -> list[Tensor]:
        """New inputs; floats require a gradient and get their memory from `layout`."""
        return [
            Tensor(layout(a), requires_grad=True) if a.dtype.kind == "f" else Tensor(a.copy())
            for a in self.arrays
        ]


CASES: list[Case] = []


def case(
    op: str, label: str, function: Callable[..., Tensor], *inputs: Any, public: str | None = None
) -> None:
    """Add a case. An input is an array, or a shape to be filled with normal numbers.

    `public` is the function that is called, if its name differs from the op's. The numbers are at
    least 0.05 away from 0, where relu and abs have kinks.
    """
    rng = np.random.default_rng(crc32(f"{op}: {label}".encode()))
    arrays = []
    for shape in inputs:
        if isinstance(shape, np.ndarray):
            arrays.append(shape)
        else:
            normal = rng.standard_normal(shape)
            arrays.append(np.asarray(normal + 0.05 * np.sign(normal)))
    CASES.append(Case(op, label, public or op, function, tuple(arrays)))


def positive(*shape: int) -> np.ndarray:
    """Numbers between 0.3 and 2."""
    return np.random.default_rng(crc32(repr(shape).encode())).uniform(0.3, 2, shape)


def distinct(*shape: int) -> np.ndarray:
    """Numbers that differ by at least 0.1, in random order: no ties for max and min."""
    size = int(np.prod(shape))
    order = np.random.default_rng(size).permutation(size)
    return (0.1 * order - 0.05 * size).reshape(shape)
