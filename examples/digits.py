"""Handwritten digits: a multi-layer perceptron and a small convolution net, both over 98% right.

python examples/digits.py [--quick]      (pip install scikit-learn, which has the pictures)
"""

import argparse

import numpy as np

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn import functional as F

SHADES = " .:-=+*#%@"


def pictures() -> tuple[np.ndarray, ...]:
    """Pictures (N, 1, 8, 8) with values from 0 to 1, and their digits; a fifth is for the test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = data.images[:, None].astype(np.float32) / 16  # float64 would make all else float64
    order = np.random.default_rng(0).permutation(len(images))
    test, training = np.split(order, [len(order) // 5])
    return images[training], data.target[training], images[test], data.target[test]


def perceptron(rng: mg.Generator) -> nn.Module:
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 128, rng=rng), nn.GELU()),
        *(nn.Dropout(0.3, rng=rng), nn.Linear(128, 10, rng=rng)),
    )


def convolutions(rng: mg.Generator) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, rng=rng), nn.ReLU()),  # (B, 16, 8, 8)
        *(nn.Conv2d(16, 32, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2)),  # (B, 32, 4, 4)
        *(nn.Flatten(), nn.Linear(512, 10, rng=rng)),
    )


def train(
    model: nn.Module, x: np.ndarray, y: np.ndarray, epochs: int, batch_size: int = 32
) -> None:
    rng = np.random.default_rng(0)
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    steps = epochs * -(-len(x) // batch_size)
    schedule = optim.WarmupCosineLR(optimizer, warmup_steps=steps // 10, total_steps=steps)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch_size):
            some = order[start : start + batch_size]
            optimizer.zero_grad()  # gradients add up otherwise
            F.cross_entropy(model(mg.Tensor(x[some])), y[some]).backward()
            optimizer.step()
            schedule.step()


def main(epochs: int = 40) -> dict[str, float]:
    """Train both; returns the share of the test pictures that each names rightly."""
    x, y, test_x, test_y = pictures()
    right = {}
    for name, make in (("perceptron", perceptron), ("convolutions", convolutions)):
        model = make(mg.Generator(0))
        train(model, x, y, epochs)
        model.eval()  # dropout is for training alone
        with mg.no_grad():
            guess = model(mg.Tensor(test_x)).numpy().argmax(axis=1)
        right[name] = float((guess == test_y).mean())
        print(f"{name}: {model.num_parameters():,} parameters, {right[name]:.1%} right")
    for place in np.flatnonzero(guess != test_y)[:1]:
        print(f"It took this {test_y[place]} for a {guess[place]}:")
        for row in test_x[place, 0]:
            print("".join(SHADES[round(9 * float(value))] * 2 for value in row))
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three epochs instead of 40")
    main(3 if parser.parse_args().quick else 40)
