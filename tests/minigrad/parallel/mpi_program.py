"""The program of the ranks in `test_mpi.py`, which also runs it as a single process.

mpirun -n 2 python mpi_program.py train FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import nn, optim
from minigrad.optim.muon import Muon
from minigrad.parallel import mpi

BATCH, STEPS = 12, 9
PATIENCE = 3  # seconds that a rank waits for another one


def make(kind: str, dtype: str) -> tuple[Any, Any, Any]:
    """A model with dropout, its optimizer and its loss."""
    rng = mg.Generator(3)
    model = nn.Sequential(
        nn.Linear(6, 10, rng=rng),
        nn.Tanh(),
        nn.Dropout(0.2, rng=rng),
        nn.Linear(10, 6, rng=rng),
    ).astype(dtype)
    parameters = model.parameters()
    if kind == "muon":
        matrices = [p for p in parameters if p.ndim == 2]
        groups = [
            {"params": matrices, "orthogonal": True},
            {"params": [p for p in parameters if p.ndim < 2]},
        ]
        optimizer: Any = Muon(groups, lr=0.02)
    else:
        optimizer = optim.AdamW(parameters, lr=0.02)

    def loss(part: Any, key: int) -> Any:
        x, y = part
        with rng.seeded(5, key):
            error = model.train()(mg.Tensor(x)) - mg.Tensor(y)
        return (error * error).sum()

    return model, optimizer, loss


def without_dropout(model: Any) -> Any:
    """A validation loss, without dropout."""

    def loss(part: Any, key: int) -> Any:
        x, y = part
        error = model.eval()(mg.Tensor(x)) - mg.Tensor(y)
        return (error * error).sum()

    return loss


def batches(dtype: str) -> list[Any]:
    """Batches of three steps: two are whole, one has 7 rows, or fewer than there are ranks."""
    rng = np.random.default_rng(1)
    sizes = [BATCH if step % 3 else (7, 1)[step % 2] for step in range(2 * STEPS)]
    return [tuple(rng.standard_normal((n, 6)).astype(dtype) for _ in "xy") for n in sizes]


CASES = list(product(("adamw", "muon"), ("float32", "float64"), (1, 2), (False, True)))


def trained(case: Any, ranks: Any = None, workers: int = 1) -> dict[str, Any]:
    """Losses and norms of all steps, the validation loss, a hash of weights, a sum of averages."""
    kind, dtype, accumulate, shard = case
    model, optimizer, loss = make(kind, dtype)
    engine = mpi.DataParallel(
        *(model, optimizer, loss, without_dropout(model)),
        ranks=ranks,
        workers=workers,
        micro_batch_size=2,
        check_every=1,
        shard_optimizer=shard,
    )
    if engine.ranks.rank:  # rank 0 reports for all
        engine.flat.data[...] = 0
    seen, parts = [], batches(dtype)
    for step in range(STEPS):
        some = parts[step * accumulate : (step + 1) * accumulate]
        scale = 1 / sum(len(x) for x, _ in some)
        if accumulate == 1:
            mean = engine.gradients(some[0], scale=scale, key=step)
        else:
            mean = engine.accumulated(some, scale=scale, key=step * accumulate)
        seen.append((mean, engine.grad_norm))
        engine.update(optimizer, 0.5)
    engine.check()
    score = engine.evaluate(parts[0])
    with engine.whole_optimizer():
        states = optimizer.state_dict()["state"].values()
    averages = [float(abs(a).sum()) for entry in states for k, a in entry.items() if k != "step"]
    found = {
        "steps": seen,
        "score": score,
        "hash": mpi.fingerprint(engine.flat.array),
        "averages": averages,
        "weights": engine.flat.array.tolist(),
    }
    engine.close()
    return found


def train(ranks: Any) -> Any:
    return [trained(case, ranks) for case in CASES]


def workers(ranks: Any) -> Any:
    """Two workers per rank, forked before MPI starts; later ones are threads."""
    from minigrad.parallel import why_not_processes

    before = why_not_processes()
    first = trained(CASES[0], ranks, workers=2)
    return [before, why_not_processes(), first, trained(CASES[0], ranks, workers=2)]


def by_hand(ranks: Any) -> Any:
    """Your own training loop with `allreduce_gradients`."""
    rng = mg.Generator(3 + ranks.rank)
    model = nn.Sequential(nn.Linear(6, 4, rng=rng), nn.Linear(4, 6, rng=rng)).astype("float64")
    unused = nn.Linear(2, 2, rng=rng).parameters()
    mpi.broadcast_parameters(model, ranks=ranks)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    share = BATCH // ranks.size
    for x, y in batches("float64")[1:3]:
        rows = slice(ranks.rank * share, (ranks.rank + 1) * share)
        optimizer.zero_grad()
        error = model(mg.Tensor(x[rows])) - mg.Tensor(y[rows])
        (error * error).mean().backward()
        mpi.allreduce_gradients([*model.parameters(), *unused], ranks=ranks)
        assert unused[0].grad is None
        optimizer.step()
    return [p.numpy().tolist() for p in model.parameters()]


def fail(ranks: Any, how: str, who: int) -> Any:
    """One rank fails during training; the others report what they have noticed."""
    model, optimizer, loss = make("adamw", "float32")
    engine = mpi.DataParallel(model, optimizer, loss, ranks=ranks, check_every=3)
    for step, batch in enumerate(batches("float32")):
        began = time.monotonic()
        try:
            engine.gradients(batch, scale=1.0, key=step)
        except mpi.RankError as error:
            return [str(error), list(error.ranks), time.monotonic() - began]
        engine.update(optimizer)
        if step == 7 and ranks.rank == who:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif how == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif how == "hangs":
                time.sleep(1000)
            elif how == "raises":
                raise OSError("No space left on device")
            elif how == "diverges":
                engine.flat.data[3] += 1e-6
            elif how == "exits":
                os._exit(0)
    return None


def memory(ranks: Any, shard: bool) -> Any:
    """Kilobytes of this rank's shared memory, after a step and after gathering the averages."""
    model = nn.Linear(1000, 3000, bias=False, rng=mg.Generator(0))
    optimizer = optim.AdamW(model.parameters())
    engine = mpi.DataParallel(
        *(model, optimizer, lambda part, key: model(mg.Tensor(part[0])).sum()),
        ranks=ranks,
        shard_optimizer=shard,
    )
    engine.gradients((np.ones((4, 1000), np.float32),), scale=1.0)
    engine.update(optimizer)
    made = resident()
    with engine.whole_optimizer():
        optimizer.state_dict()
    return [made, resident()]


def resident() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("RssShmem:")[1].split()[0])


def forever(ranks: Any) -> Any:
    """Train until another rank is lost; a file shows that training has begun."""
    model, optimizer, loss = make("adamw", "float32")
    engine = mpi.DataParallel(model, optimizer, loss, ranks=ranks)
    parts, step = batches("float32"), 0
    while True:
        try:
            engine.gradients(parts[step % len(parts)], scale=1.0, key=step)
        except mpi.RankError as error:
            return [str(error), list(error.ranks), step]
        engine.update(optimizer)
        step += 1
        if step == 20:
            (Path(sys.argv[-1]) / f"begun {ranks.rank}").touch()


def main() -> None:
    what, *more, folder = sys.argv[1:]
    waits = what == "forever" or more[:1] in (["hangs"], ["stopped"])
    ranks = mpi.Ranks(patience=PATIENCE if waits else 60)
    if what == "fail":
        result = fail(ranks, more[0], int(more[1]))
    elif what == "memory":
        result = memory(ranks, more[0] == "shard")
    else:
        result = {
            "train": train,
            "workers": workers,
            "by_hand": by_hand,
            "forever": forever,
        }[what](ranks)
    name = Path(folder) / f"{ranks.rank}.json"
    name.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
