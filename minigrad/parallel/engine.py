"""Engines compute losses and gradients of batches, and make an optimizer's steps from them.

A batch is split into micro-batches. Floating-point sums depend on their order, but a run must give
the same numbers for any number of workers. Therefore the micro-batches are divided into *lanes*,
fixed and contiguous shares. Each lane is a gradient accumulator: it adds up the gradients of its
micro-batches in order, in a buffer of its own. Then the buffers are added in order. A worker
computes whole lanes, so nothing depends on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import inf
from typing import Any, Protocol

from minigrad.optim.flat import FlatParameters
from minigrad.optim.optimizer import Optimizer
from minigrad.tensor import Tensor

Part = tuple[Any, ...]  # arrays of a batch or of a part of it, each with sequences as its rows
Loss = Callable[[Part, int], Tensor]  # the summed loss of a part, from its arrays and its key
MAX_LANES = 8
MICRO_KEYS = 2**20  # keys that an engine has for the micro-batches of one call
LANE_MEMORY = 256 * 2**20  # bytes that the lanes' gradient buffers may take together


class Engine(Protocol):
    """One step is `gradients`, then `update`, on several workers or on a GPU.

    An engine is made from parameters, two losses, and the optimizer that will make the steps. It
    puts parameters, gradients and the optimizer's averages into flat memory.

    Attributes:
        flat: the parameters and, after `gradients`, their gradients.
        grad_norm: the 2-norm of all gradients, after `gradients`.
    """

    flat: FlatParameters
    grad_norm: float

    def gradients(self, arrays: Part, *, scale: float, key: int = 0) -> float:
        """Write the gradient of `scale` times the summed loss of a batch to `flat.grad`.

        Args:
            arrays: (B, ...) each.
            scale: for example one over the number of predictions, for a mean.
            key: the step's number, from which random numbers depend.

        Returns:
            `scale` times the summed loss.
        """
        ...

    def update(self, optimizer: Optimizer, max_norm: float = inf) -> None:
        """Clip the gradients of the last `gradients` to `max_norm` and step the optimizer.

        `flat.grad` itself is not scaled: `optimizer.step` takes the factor.
        """
        ...

    def evaluate(self, arrays: Part) -> Any:
        """The summed loss of a batch, without gradients: a number, which may be on a GPU."""
        ...

    def micro_batches(self, arrays: Part, key: int = 0) -> Iterator[tuple[Part, int]]:
        """The parts that `gradients` computes one by one, with the keys of their losses."""
        ...

    def close(self) -> None:
        """Free what computes, such as workers. The parameters stay where they are."""
        ...


def accumulated(engine: Any, batches: Sequence[Part], *, scale: float, key: int = 0) -> float:
    """Let an engine add up the gradients of several batches.

    Args:
        batches: each as for `Engine.gradients`, with keys from `key` on.

    Returns:
        `scale` times the summed loss of all batches.
    """
    loss, total = 0.0, None
    for number, part in enumerate(batches):
        loss += engine.gradients(part, scale=scale, key=key + number)
        if len(batches) > 1:
            total = engine.flat.grad + (0 if total is None else total)
    if total is not None:
        engine.flat.grad[...] = total
        engine.grad_norm = float(total @ total) ** 0.5
    return loss


def in_the_order_of(optimizer: Optimizer, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The same parameters, the optimizer's first, so that each group is contiguous in memory.

    Raises:
        ValueError: the optimizer has a parameter that is not among them.
    """
    theirs = optimizer.parameters()
    known = {id(p) for p in theirs}
    rest = [p for p in parameters if id(p) not in known]
    if len(rest) + len(theirs) != len(parameters):
        raise ValueError("the optimizer steps a parameter that the engine was not given")
    return theirs + rest


def number_of_lanes(parameter_bytes: int) -> int:
    """The number of lanes for a model: as many as fit the memory, a power of two from 2 to 8."""
    lanes = MAX_LANES
    while lanes > 2 and lanes * parameter_bytes > LANE_MEMORY:
        lanes //= 2
    return lanes


def cut(batch_size: int, micro_batch_size: int, lanes: int) -> list[list[slice]]:
    """The micro-batches of each lane, as slices of the batch. Lanes without any are left out.

    >>> cut(10, 3, 2)
    [[slice(0, 3, None), slice(3, 6, None)], [slice(6, 9, None), slice(9, 10, None)]]
    """
    starts = list(range(0, batch_size, micro_batch_size))
    micro = [slice(start, min(start + micro_batch_size, batch_size)) for start in starts]
    lanes = min(lanes, len(micro))
    bounds = [len(micro) * lane // max(lanes, 1) for lane in range(lanes + 1)]
    return [micro[a:b] for a, b in pairwise(bounds)]
