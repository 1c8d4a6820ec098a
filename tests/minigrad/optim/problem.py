"""One problem for all optimizer tests: minigrad and PyTorch get the same start and gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minigrad import Tensor, nn
from minigrad.optim import Optimizer
from tests.minigrad.compare import assert_close

SHAPES = [(3, 4), (4,), (), (2, 1, 3)]


def parameters(dtype: Any = np.float64) -> list[nn.Parameter]:
    rng = np.random.default_rng(11)
    return [nn.Parameter(np.asarray(rng.standard_normal(s), dtype)) for s in SHAPES]


def gradients(step: int) -> list[np.ndarray]:
    """The gradients of step number `step`: scales from 1e-3 to 1e2, with some zeros."""
    rng = np.random.default_rng(1000 + step)
    values = [np.asarray(rng.standard_normal(s) * 10.0 ** rng.uniform(-3, 2, s)) for s in SHAPES]
    return [np.where(rng.random(v.shape) < 0.1, 0, v) for v in values]


def set_gradients(params: list[Any], step: int) -> None:
    """Write gradients to existing ones (views of flat memory), or set new ones."""
    for p, g in zip(params, gradients(step), strict=True):
        if p.grad is None:
            p.grad = Tensor(g.astype(p.dtype))
        else:
            p.grad.data[...] = g


def run(optimizer: Optimizer, params: list[Any], steps: range) -> None:
    for step in steps:
        set_gradients(params, step)
        optimizer.step()


def assert_equal_to_torch(
    ours: Callable[[list[Any]], Optimizer],
    theirs: Callable[[list[Any]], Any],
    *,
    flat: bool = False,
    steps: int = 100,
) -> None:
    """The parameters equal PyTorch's after each step, up to 1e-10 of the largest."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
    params = parameters()
    others = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
    optimizer, other = ours(params), theirs(others)
    if flat:
        optimizer.flatten().zero_grad()
    for step in range(steps):
        set_gradients(params, step)
        for q, g in zip(others, gradients(step), strict=True):
            q.grad = torch.tensor(g)
        optimizer.step()
        other.step()
        for p, q in zip(params, others, strict=True):
            assert_close(p.numpy(), q.detach().numpy(), 1e-10)
