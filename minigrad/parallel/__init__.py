"""Engines compute the gradient of a batch, on several CPU cores or on one device."""

from minigrad.parallel import mpi
from minigrad.parallel.capture import Captured
from minigrad.parallel.cpu import Workers
from minigrad.parallel.engine import (
    MAX_LANES,
    MICRO_KEYS,
    Engine,
    accumulated,
    number_of_lanes,
)
from minigrad.parallel.fork import WorkerError, in_processes
from minigrad.parallel.gpu import WholeBatch
from minigrad.parallel.memory import shared_array
from minigrad.parallel.processes import available_cores, choose_backend, why_not_processes

__all__ = [
    "MAX_LANES",
    "MICRO_KEYS",
    "Captured",
    "Engine",
    "WholeBatch",
    "WorkerError",
    "Workers",
    "accumulated",
    "available_cores",
    "choose_backend",
    "in_processes",
    "mpi",
    "number_of_lanes",
    "shared_array",
    "why_not_processes",
]
