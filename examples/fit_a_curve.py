"""minigrad without tinyalpaca: a small network learns sin(x); its gradients are checked first.

python examples/fit_a_curve.py
"""

import numpy as np

import minigrad as mg
from minigrad import nn, optim


def main() -> float:
    """Train for 500 steps; returns the last loss."""
    rng = mg.Generator(0)
    model = nn.Sequential(nn.Linear(1, 32, rng=rng), nn.Tanh(), nn.Linear(32, 1, rng=rng))
    x = mg.linspace(-3, 3, 64).reshape(64, 1)
    y = np.sin(x.numpy())

    proof = nn.Sequential(nn.Linear(1, 4, rng=rng), nn.Tanh(), nn.Linear(4, 1, rng=rng))
    share = mg.gradcheck_module(proof.astype("float64"), [x.astype("float64")])
    print(f"gradients proved: the largest error is {share:.3%} of what is allowed")

    optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(1, 501):
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step:3d}  mean squared error {loss.item():.6f}")
    return loss.item()


if __name__ == "__main__":
    main()
