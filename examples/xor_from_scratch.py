"""XOR with tensors and autograd only: no layers, no optimizer, no loss function.

python examples/xor_from_scratch.py [--quick]

Two inputs, eight hidden units, one output. No line can part XOR's answers, so the hidden units must
bend the plane: the map that is drawn at the end shows how.
"""

import argparse

import minigrad as mg

POINTS = mg.Tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # (4, 2)
ANSWERS = mg.Tensor([[0.0], [1.0], [1.0], [0.0]])  # (4, 1)


def network(x: mg.Tensor, w1: mg.Tensor, b1: mg.Tensor, w2: mg.Tensor, b2: mg.Tensor) -> mg.Tensor:
    """(N, 2) -> (N, 1): the probability that the answer is one."""
    hidden = mg.tanh(x @ w1 + b1)  # (N, 8)
    return 1 / (1 + mg.exp(-(hidden @ w2 + b2)))


def surprise(p: mg.Tensor, y: mg.Tensor) -> mg.Tensor:
    """The mean of -log of the probability that the right answer was given."""
    return -(y * mg.log(p) + (1 - y) * mg.log(1 - p)).mean()


def draw(weights: list[mg.Tensor], rows: int = 13, columns: int = 33) -> str:
    """The plane from (-0.5, -0.5) to (1.5, 1.5): # where the network says one, . where zero."""
    lines = []
    with mg.no_grad():
        for y in mg.linspace(1.5, -0.5, rows).tolist():
            row = mg.Tensor([[x, y] for x in mg.linspace(-0.5, 1.5, columns).tolist()])
            p = network(row, *weights).reshape(-1).tolist()
            lines.append(
                "".join(
                    "." if v < 0.25 else "-" if v < 0.5 else "+" if v < 0.75 else "#" for v in p
                )
            )
    return "\n".join(lines)


def main(steps: int = 2000, rate: float = 0.5) -> float:
    """Plain gradient descent; returns the last loss."""
    rng = mg.Generator(1)
    weights = [rng.normal((2, 8)), mg.zeros(8), rng.normal((8, 1)), mg.zeros(1)]
    for w in weights:
        w.requires_grad = True
    for step in range(1, steps + 1):
        loss = surprise(network(POINTS, *weights), ANSWERS)
        gradients = mg.grad(loss, weights)
        with mg.no_grad():  # the update itself is not differentiated
            for w, g in zip(weights, gradients, strict=True):
                w -= rate * g
        if step % (steps // 4) == 0:
            print(f"step {step:4d}  loss {loss.item():.4f}")
    for point, p in zip(POINTS.tolist(), network(POINTS, *weights).tolist(), strict=True):
        print(f"{point[0]:.0f} xor {point[1]:.0f} = {p[0]:.3f}")
    print(draw(weights))
    return loss.item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the steps")
    main(400 if parser.parse_args().quick else 2000)
