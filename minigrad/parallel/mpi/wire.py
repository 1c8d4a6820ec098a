"""Adding up flat gradients over ranks, through host memory, MPI or NCCL."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from minigrad.device import device_of
from minigrad.parallel.mpi.ranks import Ranks

WIRES = ("host", "device", "nccl")


class Wire:
    """Sums a flat gradient over all ranks, in its place.

    Args:
        ranks: all of them.
        gradient: the array; it stays where it is.
        way: of a GPU's gradient: "host", through a buffer in pinned memory of the host; "device",
            by an MPI that reads the GPU's memory; "nccl", by NVIDIA's library, one rank a GPU.

    Raises:
        ValueError: an unknown way.
    """

    ranks: Ranks
    gradient: Any

    def __init__(self, ranks: Ranks, gradient: Any, way: str = "host") -> None:
        if way not in WIRES:
            raise ValueError(f"a wire is one of {', '.join(WIRES)}, not {way!r}")
        self.ranks, self.gradient, self.way = ranks, gradient, way
        self._on_host = isinstance(gradient, np.ndarray)
        self._device = device_of(gradient)
        self._pinned: Any = None
        self._nccl: Any = None

    def sum(self) -> None:
        """Replace the gradient by the sum over all ranks."""
        if self._on_host:
            self.ranks.sum(self.gradient)
            return
        with self._device.in_use():
            if self.way == "nccl":
                self._by_nccl().all_reduce(self.gradient, self.gradient)
            elif self.way == "device":
                self._device.xp.cuda.get_current_stream().synchronize()
                self.ranks.sum(self.gradient)
            else:
                host = self._buffer()
                self.gradient.get(out=host)
                self.ranks.sum(host)
                self.gradient.set(host)

    def broadcast(self, array: Any) -> None:
        """Replace an array of the gradient's size by that of rank 0."""
        if self._on_host:
            self.ranks.broadcast(array)
            return
        with self._device.in_use():
            host = self._buffer()
            array.get(out=host)
            self.ranks.broadcast(host)
            array.set(host)

    def _buffer(self) -> np.ndarray:
        """Pinned memory of the host, which a GPU reads and writes directly."""
        if self._pinned is None:
            size, dtype = self.gradient.size, self.gradient.dtype
            memory = self._device.xp.cuda.alloc_pinned_memory(size * dtype.itemsize)
            self._pinned = np.frombuffer(memory, dtype, size)
        return self._pinned

    def _by_nccl(self) -> Any:
        if self._nccl is None:
            distributed = importlib.import_module("cupyx.distributed")
            # MPI carries the one number by which the ranks find each other.
            self._nccl = distributed.NCCLBackend(self.ranks.size, self.ranks.rank, use_mpi=True)
        return self._nccl
