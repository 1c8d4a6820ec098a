"""For loops written by hand: the mean of all ranks' gradients."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from minigrad.device import CPU
from minigrad.parallel.mpi.ranks import Ranks
from minigrad.tensor import Tensor


@cache
def all_ranks() -> Ranks:
    """The processes of `mpirun`, as the functions here see them."""
    return Ranks()


def allreduce_gradients(model: Any, *, ranks: Ranks | None = None) -> None:
    """Replace each gradient by the mean over all ranks, after `backward()` and before `step()`.

    If all batches are equally large and losses are means, that makes the same step as a single
    process with all batches.

    Args:
        model: a module, or parameters; those without a gradient on any rank are left alone.
        ranks: the processes; those of `mpirun` if left out.

    Raises:
        RankError: another rank has died, hangs or has stopped.
        RuntimeError: MPI is not installed, or is another than that of `mpirun`.
        ValueError: the ranks' models differ in size.
    """
    ranks = all_ranks() if ranks is None else ranks
    if ranks.size == 1:
        return
    ranks.start()
    parameters = _parameters(model)
    counts = np.array([p.grad is not None for p in parameters], np.float64)
    sizes = ranks.meet([len(parameters), sum(p.size for p in parameters)], "compare models")
    if (sizes != sizes[0]).any():
        raise ValueError(f"the ranks have models of other sizes: {sizes.tolist()}")
    ranks.sum(counts)
    members = [p for p, count in zip(parameters, counts, strict=True) if count]
    for dtype in dict.fromkeys(p.dtype for p in members):
        some = [p for p in members if p.dtype == dtype]
        flat = np.concatenate(
            [
                np.zeros(p.size, dtype) if p.grad is None else CPU.asarray(p.grad.array).reshape(-1)
                for p in some
            ]
        )
        ranks.sum(flat)
        flat /= ranks.size
        begin = 0
        for p in some:
            values = p.device.asarray(flat[begin : begin + p.size].reshape(p.shape))
            if p.grad is None:
                p.grad = Tensor.wrap(values)
            else:
                p.grad.array[...] = values
                p.grad.changed()
            begin += p.size


def broadcast_parameters(model: Any, *, ranks: Ranks | None = None) -> None:
    """Give every rank the parameters of rank 0, so that all start equal."""
    ranks = all_ranks() if ranks is None else ranks
    if ranks.size == 1:
        return
    ranks.start()
    for parameter in _parameters(model):
        values = np.ascontiguousarray(CPU.asarray(parameter.array))
        ranks.broadcast(values)
        parameter.assign(values)


def _parameters(model: Any) -> list[Tensor]:
    found: Iterable[Tensor] = model.parameters() if hasattr(model, "parameters") else model
    return list(found)
