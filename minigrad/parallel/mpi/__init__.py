"""Training on many machines: the same program on each, started together by `mpirun`.

    mpirun -n 4 python examples/train_on_many_machines.py

Needs mpi4py and an MPI: `pip install -e ".[mpi]"`. Without a launcher, and so with one process,
neither is looked for. MPI is started when the first step needs it, after this rank's workers have
been forked: a fork with MPI running would share its connections. Where MPI runs already, as after
`from mpi4py import MPI` in the program itself, workers are threads.
"""

from minigrad.parallel.mpi.engine import DataParallel
from minigrad.parallel.mpi.gradients import allreduce_gradients, broadcast_parameters
from minigrad.parallel.mpi.launcher import Place, place
from minigrad.parallel.mpi.ranks import RankError, Ranks, fingerprint

__all__ = [
    "DataParallel",
    "Place",
    "RankError",
    "Ranks",
    "allreduce_gradients",
    "broadcast_parameters",
    "fingerprint",
    "place",
]
