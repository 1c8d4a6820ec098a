"""Any program on minigrad on many machines:  mpirun -n 4 python examples/train_on_many_machines.py

Needs `pip install -e ".[mpi]"`; with `python` alone the same program trains in one process.
"""

import numpy as np

import minigrad as mg
from minigrad import nn, optim
from minigrad.parallel import mpi


def main(steps: int = 100, batch_size: int = 96) -> float:
    rng = mg.Generator(0)
    model = nn.Sequential(nn.Linear(8, 64, rng=rng), nn.Tanh(), nn.Linear(64, 1, rng=rng))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    def loss(part, key):  # the sum over a part of the batch; `key` is for those who draw numbers
        x, y = part
        error = model(mg.Tensor(x)) - mg.Tensor(y)
        return (error * error).sum()

    engine = mpi.DataParallel(model, optimizer, loss)
    draw = np.random.default_rng(0)  # the same on all ranks: each takes its rows of the batch
    for step in range(steps):
        x = draw.standard_normal((batch_size, 8)).astype(np.float32)
        y = np.sin(x).sum(axis=1, keepdims=True)
        mean = engine.gradients((x, y), scale=1 / batch_size, key=step)
        engine.update(optimizer, max_norm=1.0)
        if engine.ranks.rank == 0 and step % 10 == 9:
            print(f"step {step + 1:3}  loss {mean:.6f}", flush=True)
    engine.close()
    return mean


if __name__ == "__main__":
    main()
