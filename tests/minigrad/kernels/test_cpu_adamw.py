"""Compares AdamW's kernel with its page and with PyTorch."""

import numpy as np
import pytest

from minigrad.kernels.cpu.adamw import SLICE, adamw_step
from minigrad.ops.updates.adamw import adamw as textbook

OPTIONS = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 7, SLICE, 2 * SLICE + 5])
def test_equals_the_textbook(size, dtype, decay):
    rng = np.random.default_rng(0)
    p, m, v = rng.standard_normal(size).astype(dtype), np.zeros(size, dtype), np.zeros(size, dtype)
    wanted = p.astype(np.float64), m.astype(np.float64), v.astype(np.float64)
    for step in range(1, 6):
        grad = rng.standard_normal(size).astype(dtype)
        before = grad.copy()
        options = {**OPTIONS, "weight_decay": decay, "step": step}
        wanted = textbook.step(np, wanted[0], grad.astype(np.float64) / 2, *wanted[1:], **options)
        adamw_step(p, grad, m, v, **options, grad_scale=0.5)
        np.testing.assert_array_equal(grad, before)
    eps = np.finfo(dtype).eps
    for got, want in zip((p, m, v), wanted, strict=True):
        # five steps with a few rounding errors each, of numbers up to about 4
        np.testing.assert_allclose(got, want, rtol=10 * eps, atol=10 * eps)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_torch(decay):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    p, m, v = rng.standard_normal(1000), np.zeros(1000), np.zeros(1000)
    theirs = torch.from_numpy(p.copy()).requires_grad_()
    optimizer = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.99), weight_decay=decay)
    for step in range(1, 11):
        grad = rng.standard_normal(1000)
        theirs.grad = torch.from_numpy(grad)
        optimizer.step()
        adamw_step(p, grad, m, v, **OPTIONS, weight_decay=decay, step=step)
    np.testing.assert_allclose(p, theirs.detach().numpy(), rtol=1e-12)


def test_step_counts_from_one():
    x = np.zeros(3)
    with pytest.raises(ValueError, match="counts from 1"):
        adamw_step(x, x, x, x, **OPTIONS, weight_decay=0.0, step=0)
