"""Which of several processes this one is, according to the launcher.

Launchers tell each process its rank in its environment. So it is known before MPI is started, when
processes can still be forked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

# The launcher, and its variables for rank, size, and both among the processes of one host.
KNOWN = (
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MVAPICH", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("MPICH", "PMI_RANK", "PMI_SIZE"),  # and Intel MPI, Cray's, Slurm's pmi2
    ("PALS", "PALS_RANKID", "PALS_SIZE"),
    ("Flux", "FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    ("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
LOCAL_RANKS = (
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "PALS_LOCAL_RANKID",
    "FLUX_TASK_LOCAL_ID",
    "SLURM_LOCALID",
)
LOCAL_SIZES = (
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "PALS_LOCAL_SIZE",
)
CORES = "SLURM_CPUS_PER_TASK"  # that are this process's alone


class Place(NamedTuple):
    """One process among those that were started together.

    Attributes:
        rank, size: its number, and how many there are.
        local_rank, local_size: the same among those of this host, for choosing a GPU.
        launcher: its name; "" if the process was started alone.
        cores: those that the launcher gives to this process only, 0 if it does not say.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = ""
    cores: int = 0

    def workers(self, cores: int) -> int:
        """How many workers this rank starts, if it sees `cores` cores on its host."""
        return self.cores or max(1, cores // self.local_size)


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Which process this is. Without a launcher's variables: the only one.

    >>> place({"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"})
    Place(rank=3, size=8, local_rank=1, local_size=2, launcher='MPICH', cores=0)
    """
    for launcher, rank, size in KNOWN:
        ranks = _number(environment, rank), _number(environment, size)
        if ranks[0] is None or ranks[1] is None or not 0 <= ranks[0] < ranks[1]:
            continue
        local = [_number(environment, name) for name in LOCAL_RANKS]
        sizes = [_number(environment, name) for name in LOCAL_SIZES]
        sizes.append(_tasks_of_this_host(environment))
        return Place(
            ranks[0],
            ranks[1],
            next((n for n in local if n is not None), 0),
            next((n for n in sizes if n), 1),
            launcher,
            _number(environment, CORES) or 0,
        )
    return Place()


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _tasks_of_this_host(environment: Mapping[str, str]) -> int | None:
    """From Slurm's list of the tasks of each node, such as "4(x2),3", and this node's number."""
    node, text = _number(environment, "SLURM_NODEID"), environment.get("SLURM_STEP_TASKS_PER_NODE")
    if node is None or not text:
        return None
    counts: list[int] = []
    for entry in text.split(","):
        count, _, times = entry.partition("(x")
        times = times.rstrip(")") or "1"
        if not (count.isdigit() and times.isdigit()):
            return None
        counts += [int(count)] * int(times)
    return counts[node] if node < len(counts) else None
