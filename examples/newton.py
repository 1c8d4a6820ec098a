"""Second derivatives: Newton's method finds the minimum of Rosenbrock's function.

python examples/newton.py
"""

import numpy as np

import minigrad as mg


def rosenbrock(x: mg.Tensor) -> mg.Tensor:
    """A curved valley whose lowest point is (1, 1) (Rosenbrock, 1960)."""
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def main() -> np.ndarray:
    """Newton steps x - H⁻¹g from (-1.2, 1); returns where they end."""
    x = mg.Tensor(np.array([-1.2, 1.0]), requires_grad=True)
    for step in range(8):
        value = rosenbrock(x)
        g = mg.grad(value, x, create_graph=True)  # differentiable itself
        hessian = np.stack([mg.grad(g[i], x, retain_graph=True).numpy() for i in range(2)])
        print(f"step {step}  x = {x.numpy().round(6)}  value {value.item():.3e}")
        x = mg.Tensor(x.numpy() - np.linalg.solve(hessian, g.numpy()), requires_grad=True)
    return x.numpy()


if __name__ == "__main__":
    main()
