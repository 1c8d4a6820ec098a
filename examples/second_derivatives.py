"""Second derivatives: the curvature of a loss, its spectrum, and Newton's method.

python examples/second_derivatives.py [--quick]
"""

import argparse
from itertools import pairwise

import numpy as np

import minigrad as mg
from minigrad.functional import grad, hessian, hvp


def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds of points in the plane, one long and thin, and the cloud of each point."""
    x = rng.normal(size=(120, 2))
    x[:60] *= [3.0, 0.3]
    x[60:] += [0.0, 1.5]
    return x, np.repeat([0.0, 1.0], 60)


def logistic(w: mg.Tensor, x: np.ndarray, y: np.ndarray) -> mg.Tensor:
    """Mean of log(1 + e^-z) where z is the margin, and a little of |w|². w is (3,)."""
    z = (mg.Tensor(x) @ w[:2] + w[2]) * (2 * y - 1)
    return mg.log(1 + mg.exp(-z)).mean() + 1e-3 * (w**2).sum()


def steps_of(move, w: np.ndarray, loss, limit: int, enough: float = 1e-8) -> int:
    """How many moves it takes until the gradient is small."""
    for step in range(limit):
        gradient = grad(loss)(w).numpy()
        if np.linalg.norm(gradient) < enough:
            return step
        w = move(w, gradient)
    return limit


def network(flat: mg.Tensor, x: np.ndarray, y: np.ndarray, width: int) -> mg.Tensor:
    """The loss of a net 2 -> width -> 1 whose weights lie in one tensor (4·width + 1,)."""
    w1, b1, w2 = (
        flat[: 2 * width].reshape(2, width),
        flat[2 * width : 3 * width],
        flat[3 * width : -1],
    )
    z = (mg.tanh(mg.Tensor(x) @ w1 + b1) @ w2 + flat[-1]) * (2 * y - 1)
    return mg.log(1 + mg.exp(-z)).mean()


def histogram(eigenvalues: np.ndarray) -> str:
    """How many eigenvalues lie in each decade."""
    lines = []
    edges = [-np.inf, -1e-2, -1e-4, 1e-4, 1e-2, 1e-1, 1.0, np.inf]
    for low, high in pairwise(edges):
        count = int(((eigenvalues >= low) & (eigenvalues < high)).sum())
        lines.append(f"   {low:8.0e} to {high:8.0e}  {'#' * count}")
    return "\n".join(lines)


def main(quick: bool = False) -> tuple[int, int, np.ndarray]:
    """Returns the steps of Newton's method and of gradient descent, and a net's eigenvalues."""
    rng = np.random.default_rng(0)
    x, y = data(rng)

    def loss(w):
        return logistic(w, x, y)

    largest = np.linalg.eigvalsh(hessian(loss)(np.zeros(3)).numpy())[-1]
    newton = steps_of(
        lambda w, g: w - np.linalg.solve(hessian(loss)(w).numpy(), g), np.zeros(3), loss, 50
    )
    descent = steps_of(lambda w, g: w - g / largest, np.zeros(3), loss, 300 if quick else 5000)
    print(f"Logistic regression: Newton's method takes {newton} steps, gradient descent {descent}.")

    width = 4 if quick else 10
    flat = rng.normal(size=4 * width + 1)

    def net(w):
        return network(w, x, y, width)

    for _ in range(50 if quick else 800):
        flat = flat - 0.3 * grad(net)(flat).numpy()
    curvature = hessian(net)(flat).numpy()
    eigenvalues = np.linalg.eigvalsh(curvature)
    print(f"A trained net of {len(flat)} weights: eigenvalues of its Hessian")
    print(histogram(eigenvalues))
    print("Most directions are flat, a few are steep: a single rate cannot fit both.")
    v = rng.normal(size=len(flat))  # curvature along one direction, without the matrix
    _, (along,) = hvp(net, (flat,), (v,))
    print(f"H·v without H: off by {np.abs(along.numpy() - curvature @ v).max():.1e}")
    return newton, descent, eigenvalues


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller net, fewer steps")
    main(parser.parse_args().quick)
