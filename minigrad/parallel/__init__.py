"""Computing the gradient of a batch: on several CPU cores, or whole on one device."""

from minigrad.parallel.shared import shared_array
from minigrad.parallel.team import WorkerError, available_cores, choose_backend, why_not_processes
from minigrad.parallel.whole_batch import WholeBatch
from minigrad.parallel.workers import Workers

__all__ = [
    "WholeBatch",
    "WorkerError",
    "Workers",
    "available_cores",
    "choose_backend",
    "shared_array",
    "why_not_processes",
]
