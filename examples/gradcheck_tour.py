"""Is a gradient right? What a check by finite differences finds, and what it cannot find.

python examples/gradcheck_tour.py [--quick]
"""

import argparse

import numpy as np

import minigrad as mg
from minigrad import nn
from minigrad.nn import functional as F


class cube(mg.Op):
    """y = x³, with its gradient 3x² written by hand."""

    def forward(xp, x):
        return x * x * x, x

    def backward(xp, dy, x, needs):
        return (3 * x * x * dy,)


class wrong_cube(mg.Op):
    """The same with a slip: x³ is not differentiated like x²."""

    def forward(xp, x):
        return x * x * x, x

    def backward(xp, dy, x, needs):
        return (2 * x * dy,)


class proud_cube(mg.Op):
    """A slip that only some inputs show: it is right where x is positive."""

    def forward(xp, x):
        return x * x * x, x

    def backward(xp, dy, x, needs):
        return (3 * x * xp.abs(x) * dy,)


def by_hand(function, x: np.ndarray, place: int, step: float) -> float:
    """The slope of Σ f(x) along one element, as (f(x + h) - f(x - h)) / 2h."""
    up, down = x.copy(), x.copy()
    up[place] += step
    down[place] -= step
    return (function(mg.Tensor(up)).sum().item() - function(mg.Tensor(down)).sum().item()) / (
        2 * step
    )


def verdict(name: str, function, *inputs: mg.Tensor) -> bool:
    """Print whether the check passes."""
    try:
        share = mg.gradcheck(function, list(inputs))
    except mg.GradientError as error:
        print(f"{name:22s} WRONG. {str(error).partition(': ')[2].splitlines()[0]}")
        return False
    print(f"{name:22s} right; the largest error is {share:.1%} of what is allowed")
    return True


def main(quick: bool = False) -> list[bool]:
    """Every check of the tour; returns what each said."""
    x = np.array([-1.5, -0.5, 0.7, 2.0])
    print("1. A slope by hand, and how the step decides about it. 3x² at 2 is 12:")
    for step in (1e-1, 1e-5, 1e-13):  # too long sees curvature, too short sees rounding
        print(f"   step {step:.0e}: {by_hand(cube, x, 3, step):.9f}")

    print("2. gradcheck compares all elements, with a random gradient from above:")
    t = mg.Tensor(x, requires_grad=True)
    said = [verdict(op.__name__, op, t) for op in (cube, wrong_cube, proud_cube)]

    print("3. A check is as good as its inputs. Positive numbers alone do not see the slip:")
    said.append(
        verdict("proud_cube, positive", proud_cube, mg.Tensor(np.abs(x), requires_grad=True))
    )

    print("4. Gradients of gradients are checked likewise, and whole networks by their parameters:")
    rng = mg.Generator(0)
    sizes = (3, 4) if quick else (5, 8)
    a = mg.Tensor(np.random.default_rng(0).standard_normal(sizes), requires_grad=True)
    slope = mg.functional.grad(lambda a: (F.softmax(a)[:, 0] ** 2).sum(), create_graph=True)
    said.append(verdict("a gradient of softmax", slope, a))
    layer = nn.Sequential(nn.Linear(sizes[1], 6, rng=rng), nn.GELU(), nn.Linear(6, 2, rng=rng))
    share = mg.gradcheck_module(layer.astype("float64"), [a.detach()])
    print(f"   a network of {layer.num_parameters()} parameters: {share:.1%} of what is allowed")
    return said


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller inputs")
    main(parser.parse_args().quick)
