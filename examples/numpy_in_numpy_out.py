"""minigrad's gradients in another optimizer: SciPy's L-BFGS, with arrays in and out.

python examples/numpy_in_numpy_out.py [--quick]      (pip install scipy)

A chain of weights hangs between two nails. Where does it hang? Where its energy is lowest: the
height of all its links, and springs between them. SciPy wants a function of one flat array that
gives a number and a gradient; `value_and_grad` makes one of any function of tensors.
"""

import argparse

import numpy as np

import minigrad as mg


def energy(inner: mg.Tensor, ends: np.ndarray, stiffness: float = 400.0) -> mg.Tensor:
    """Of a chain whose links lie at `inner` (N, 2), with its ends (2, 2) held fast."""
    links = mg.concatenate([ends[:1], inner, ends[1:]])  # (N + 2, 2)
    lengths = ((links[1:] - links[:-1]) ** 2).sum(axis=1) ** 0.5
    rest = 2.6 / (len(inner) + 1)  # a chain of 2.6 between nails that are 2 apart
    springs = stiffness * len(inner) * ((lengths - rest) ** 2).sum()
    return links[:, 1].mean() * 9.81 + springs


def draw(links: np.ndarray, rows: int = 12, columns: int = 61) -> str:
    """The chain as text."""
    picture = np.full((rows, columns), " ")
    low, high = links[:, 1].min(), links[:, 1].max()
    for x, y in links:
        column = round((x + 1) / 2 * (columns - 1))
        picture[round((high - y) / (high - low) * (rows - 1)), np.clip(column, 0, columns - 1)] = (
            "o"
        )
    return "\n".join("".join(row).rstrip() for row in picture)


def main(links: int = 40) -> np.ndarray:
    """Let it hang; returns the links' places, (links, 2)."""
    from scipy.optimize import check_grad, minimize

    ends = np.array([[-1.0, 0.0], [1.0, 0.0]])
    start = np.linspace(ends[0], ends[1], links + 2)[1:-1] - [0.0, 0.1]
    both = mg.functional.value_and_grad(lambda flat: energy(flat.reshape(links, 2), ends))

    def fun(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = both(flat)  # float64 in, float64 out
        return value.item(), gradient.numpy()

    error = check_grad(lambda x: fun(x)[0], lambda x: fun(x)[1], start.ravel())
    print(f"SciPy's own check of our gradient: off by {error:.1e}")
    found = minimize(fun, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 5000})
    print(f"{found.nit} iterations, {found.nfev} gradients, energy {found.fun:.4f}")
    hanging = found.x.reshape(links, 2)
    print(draw(np.concatenate([ends[:1], hanging, ends[1:]])))
    return hanging


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a chain of 12 links")
    main(12 if parser.parse_args().quick else 40)
