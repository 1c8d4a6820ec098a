"""How long a step takes on 1 to 4,096 machines: formulas, and a measurement on this machine.

    python examples/scaling_model.py                              the tables
    mpirun -n 2 python examples/scaling_model.py --measure        time, beside what the model says

A step of N ranks computes, exchanges a few numbers, and adds up gradients:

    t(N) = C/N + m(N) + a(N)

C is the time of the whole batch's forward and backward on one rank: 6 additions and multiplications
for each parameter and token, and 6·L·T·C of attention's scores and sums (T tokens of a sequence,
each of which sees half of them, L layers of width C), divided by the rate F of a rank. The
optimizer's update, one or two passes over the parameters, is left out.

m(N) is the exchange: 64 bytes from all ranks to all ranks, log₂N·α + 64·N/β, with the network's
latency α and the bandwidth β of a rank.

a(N) adds up M = 4·P bytes of gradients, each rank getting the sum:

    ring    2·(N-1)·α + 2·(N-1)/N·M/β     each sends its parts on to its neighbour
    halves  2·log₂N·α + 2·(N-1)/N·M/β     partners at distances 1, 2, 4, ... exchange halves
    tree    2·log₂N·(α + M/β)             everything up a tree to one rank, and down again

The ring sends the fewest bytes possible, but its latency grows with N. Halves (Rabenseifner, 2004)
are good in both; MPI libraries use them, or the tree for short messages. The tables use the best.

Two questions. *Strong* scaling: the batch stays, so C/N shrinks while a(N) does not: adding ranks
stops paying where C/N = a(N), near N = C·β/(2·M), that is in proportion to the *batch*, whatever
the size of the model (both C and M grow with P). *Weak* scaling: each rank gets a batch of its own,
C stays, and the efficiency C/(C + a) hardly depends on N; but so large a batch learns less a token.

ZeRO-1 scatters the sum instead (half of a(N)), updates 1/N of the parameters a rank, and collects
them (the other half): the same bytes and time. What it saves is memory: Adam keeps 8 bytes of
averages a parameter, beside 4 of weights and 4 of gradients: 16·P becomes 8·P + 8·P/N.
"""

from __future__ import annotations

import argparse
import time
from math import log2
from typing import NamedTuple

import numpy as np

import minigrad as mg
from minigrad import optim
from minigrad.parallel import mpi
from tinyalpaca import ModelConfig, TinyAlpaca


class Workload(NamedTuple):
    """A model and its batch: parameters, layers, width, tokens of a sequence, sequences.

    A small model reaches a part of the rate that a large one computes at, its `share`.
    """

    name: str
    parameters: float
    layers: int
    width: int
    time: int
    batch: int
    share: float = 1.0

    @property
    def operations(self) -> float:
        """Additions and multiplications of a step."""
        tokens = self.batch * self.time
        return tokens * (6 * self.parameters + 6 * self.layers * self.time * self.width)


WORKLOADS = (
    Workload("seed", 0.268e6, 4, 64, 127, 32, share=0.75),
    Workload("baby-gpt", 10.7e6, 6, 384, 255, 64),
    Workload("GPT-2", 124e6, 12, 768, 1024, 512),
    Workload("1.3 B", 1.3e9, 24, 2048, 2048, 512),
)


class Cluster(NamedTuple):
    """Operations a second of a rank, latency in seconds, bandwidth in bytes a second."""

    name: str
    rate: float
    latency: float
    bandwidth: float


# The first is measured: steps of tests/benchmarks (65 GFLOP/s a core for the seed, 86 for large),
# an exchange of two ranks and 10.7 M floats added up. The others are from data sheets.
CLUSTERS = (
    Cluster("ranks of one core each, in the memory of one host (measured)", 86e9, 17e-6, 1.5e9),
    Cluster("such ranks with 10 Gbit/s Ethernet", 86e9, 30e-6, 1.25e9),
    Cluster("GPUs at 200 TFLOP/s with 400 Gbit/s each", 200e12, 5e-6, 50e9),
)
SIZES = (1, 2, 4, 8, 16, 64, 256, 1024, 4096)


def meeting(n: int, cluster: Cluster) -> float:
    """Seconds in which all ranks get 64 bytes from all ranks."""
    return log2(n) * cluster.latency + 64 * (n - 1) / cluster.bandwidth


def ring(n: int, size: float, cluster: Cluster) -> float:
    """Seconds in which `size` bytes are added up around a ring."""
    return 2 * (n - 1) * cluster.latency + 2 * (n - 1) / n * size / cluster.bandwidth


def halves(n: int, size: float, cluster: Cluster) -> float:
    """Seconds in which they are added up by exchanging halves."""
    return 2 * log2(n) * cluster.latency + 2 * (n - 1) / n * size / cluster.bandwidth


def tree(n: int, size: float, cluster: Cluster) -> float:
    """Seconds in which they are added up by a tree."""
    return 2 * log2(n) * (cluster.latency + size / cluster.bandwidth)


def step(n: int, work: Workload, cluster: Cluster, *, weak: bool = False) -> float:
    """Seconds of a step of n ranks: of the whole batch, or if `weak` of a batch for each."""
    size = 4 * work.parameters
    compute = work.operations / (cluster.rate * work.share)
    best = min(way(n, size, cluster) for way in (ring, halves, tree))
    return (compute if weak else compute / n) + meeting(n, cluster) + best


def stops_paying(work: Workload, cluster: Cluster) -> int:
    """The last power of two at which twice the ranks still save a quarter of the time.

    More ranks than sequences have nothing to do.
    """
    n = 1
    while 2 * n <= work.batch and step(2 * n, work, cluster) < 0.75 * step(n, work, cluster):
        n *= 2
    return n


def memory(n: int, work: Workload) -> tuple[float, float]:
    """GB of weights, gradients and averages a rank, without and with ZeRO-1."""
    return 16e-9 * work.parameters, (8 + 8 / n) * 1e-9 * work.parameters


def tables() -> str:
    """Print the tables."""
    lines = []
    for cluster in CLUSTERS:
        lines += ["", f"{cluster.name}: seconds a step, strong | share of the ideal, weak"]
        lines.append(f"{'ranks':>9}" + "".join(f"{work.name:>19}" for work in WORKLOADS))
        for n in SIZES:
            cells = []
            for work in WORKLOADS:
                one, weak = step(1, work, cluster), step(n, work, cluster, weak=True)
                strong = f"{step(n, work, cluster):.3g}" if n <= work.batch else "-"
                cells.append(f"{strong:>12} | {one / weak:4.0%}")
            lines.append(f"{n:9,}" + "".join(cells))
        last = "".join(f"{stops_paying(work, cluster):>12}       " for work in WORKLOADS)
        lines.append(f"{'pays to':>9}" + last)
    lines += ["", "GB a rank | with ZeRO-1"]
    for n in SIZES:
        cells = [f"{a:12.3g} | {b:4.2g}" for a, b in (memory(n, work) for work in WORKLOADS)]
        lines.append(f"{n:9,}" + "".join(cells))
    return "\n".join(lines)


def least(what, times: int) -> float:
    """The shortest time of several calls of a function, in seconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        what()
        found.append(time.perf_counter() - began)
    return min(found)


def measure(steps: int) -> None:
    """The parts of a step of the default model here, and the whole, beside the formulas."""
    work = WORKLOADS[0]
    model = TinyAlpaca(ModelConfig(vocab_size=512), mg.Generator(0))
    optimizer = optim.AdamW(model.parameters())

    def loss(part, key):
        x, y = part
        logits = model(x).reshape(-1, 512)
        return mg.nn.functional.cross_entropy(logits, y.reshape(-1), reduction="sum")

    engine = mpi.DataParallel(model, optimizer, loss)
    ranks = engine.ranks
    ids = np.random.default_rng(0).integers(0, 512, (work.batch, work.time))
    alone = least(lambda: engine.own.gradients((ids, ids), scale=1.0), steps)

    def whole():
        engine.gradients((ids, ids), scale=1 / ids.size)
        engine.update(optimizer, 1.0)

    seconds = least(whole, steps)
    told = [f"{ranks.size} rank(s): a step takes {1e3 * seconds:.1f} ms"]
    ids = np.tile(ids, (ranks.size, 1))
    told.append(f"with a batch for each rank {1e3 * least(whole, steps):.1f} ms")
    told.append(f"one rank computes the batch in {1e3 * alone:.1f} ms")
    if ranks.size > 1:
        few, many = np.zeros(2), np.zeros(2**22, np.float32)
        meet = least(lambda: ranks.meet(few), 20 * steps)
        add, long = least(lambda: ranks.sum(engine.flat.grad), steps), 4 * many.size
        bandwidth = 2 * (ranks.size - 1) / ranks.size * long / least(lambda: ranks.sum(many), steps)
        latency = meet / log2(ranks.size)
        rate = work.operations / alone / work.share
        here = Cluster("here", rate, latency, bandwidth)
        told.append(f"a meeting {1e6 * meet:.0f} us, adding up gradients {1e3 * add:.2f} ms")
        told.append(f"bandwidth {1e-9 * bandwidth:.2f} GB/s")
        told.append(f"the model says {1e3 * step(ranks.size, work, here):.1f} ms a step")
    if ranks.rank == 0:
        print("; ".join(told), flush=True)
    engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measure", action="store_true", help="time this machine's ranks")
    parser.add_argument("--steps", type=int, default=30, help="that are timed")
    args = parser.parse_args()
    if args.measure:
        measure(args.steps)
    else:
        print(tables())


if __name__ == "__main__":
    main()
