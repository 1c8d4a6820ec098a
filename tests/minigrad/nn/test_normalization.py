"""Normalization over batches and over groups of channels."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_close

SHAPES = [(6, 4), (3, 4, 5), (2, 4, 3, 2)]


def arrays(shape: tuple[int, ...], dtype: Any = np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = [rng.uniform(0.5, 2, 4), rng.standard_normal(4)]
    return [(3 * rng.standard_normal(shape) + 5).astype(dtype), *(v.astype(dtype) for v in vectors)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_has_mean_0_and_variance_1_in_each_channel(shape: tuple[int, ...]) -> None:
    x, w, b = arrays(shape)
    y = F.batch_norm(x, weight=mg.Tensor(w), bias=mg.Tensor(b), training=True, eps=0.0).numpy()
    channels = np.moveaxis(y, 1, 0).reshape(4, -1)
    assert np.allclose(channels.mean(1), b, rtol=0, atol=1e-13)
    assert np.allclose(channels.std(1), w, rtol=1e-13, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_given_statistics_are_used_outside_of_training(shape: tuple[int, ...]) -> None:
    x, w, b = arrays(shape)
    mean, var = np.arange(4.0), np.array([0.5, 1.0, 2.0, 4.0])
    y = F.batch_norm(x, mean, var, mg.Tensor(w), mg.Tensor(b), eps=0.1)
    v = lambda a: a.reshape(4, *(1,) * (x.ndim - 2))  # noqa: E731
    wanted = (x - v(mean)) / np.sqrt(v(var) + 0.1) * v(w) + v(b)
    assert_close(y.numpy(), wanted, 1e-14)
    plain = F.batch_norm(x, mean, var, eps=0.1)
    assert_close(plain.numpy(), (x - v(mean)) / np.sqrt(v(var) + 0.1), 1e-14)


@pytest.mark.parametrize(
    ("shape", "groups"),
    [(s, g) for s in SHAPES for g in (1, 2, 4) if len(s) > 2 or g < 4],  # no groups of one element
)
def test_each_group_has_mean_0_and_variance_1(shape: tuple[int, ...], groups: int) -> None:
    x, w, b = arrays(shape)
    y = F.group_norm(x, groups, eps=0.0).numpy()
    rows = y.reshape(len(x), groups, -1)
    assert np.allclose(rows.mean(-1), 0, atol=1e-13)
    assert np.allclose(rows.std(-1), 1, rtol=1e-13)
    v = lambda a: a.reshape(4, *(1,) * (x.ndim - 2))  # noqa: E731
    scaled = F.group_norm(x, groups, mg.Tensor(w), mg.Tensor(b), eps=0.0)
    assert_close(scaled.numpy(), y * v(w) + v(b), 1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape: tuple[int, ...]) -> None:
    inputs = [mg.Tensor(a, requires_grad=True) for a in arrays(shape)]
    mg.gradcheck(lambda x, w, b: F.group_norm(x, 2, w, b), inputs)
    mg.gradcheck(lambda x, w, b: F.batch_norm(x, np.ones(4), np.full(4, 2.0), w, b), inputs)


@pytest.mark.parametrize("shape", SHAPES)
def test_torchs(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there to compare with")
    values = arrays(shape)
    mean, var = np.arange(4.0), np.array([0.5, 1.0, 2.0, 4.0])
    other = torch.nn.functional
    for ours, theirs in (
        (
            lambda x, w, b: F.batch_norm(x, weight=w, bias=b, training=True),
            lambda x, w, b: other.batch_norm(x, None, None, w, b, training=True),
        ),
        (
            lambda x, w, b: F.batch_norm(x, mean, var, w, b),
            lambda x, w, b: other.batch_norm(x, torch.tensor(mean), torch.tensor(var), w, b),
        ),
        (
            lambda x, w, b: F.group_norm(x, 2, w, b),
            lambda x, w, b: other.group_norm(x, 2, w, b),
        ),
    ):
        own = [mg.Tensor(a, requires_grad=True) for a in values]
        tensors = [torch.tensor(a, requires_grad=True) for a in values]
        y, z = ours(*own), theirs(*tensors)
        dy = np.random.default_rng(1).standard_normal(shape)
        y.backward(mg.Tensor(dy))
        z.backward(torch.tensor(dy))
        assert_close(y.numpy(), z.detach().numpy(), 1e-13)
        for a, b in zip(own, tensors, strict=True):
            assert_close(a.grad.numpy(), b.grad.numpy(), 1e-12)


def test_a_constant_channel_is_0() -> None:
    """The mean of numbers far from 0 is rounded; its error must not be taken for a variance."""
    x = np.full((768, 2), 1000.1, np.float32)
    assert np.abs(F.batch_norm(x, training=True).numpy()).max() < 1e-6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.batch_norm(x[0], training=True), mg.ShapeError, r"x must be \(B, C, ...\)"),
        (
            lambda x: F.batch_norm(x, np.ones(3), np.ones(4)),
            mg.ShapeError,
            r"running_mean of shape \(3,\) for x of shape \(2, 4\)",
        ),
        (
            lambda x: F.batch_norm(x[:1], training=True),
            mg.ShapeError,
            "one element a channel, whose variance is 0. Train on larger batches, or call .eval()",
        ),
        (lambda x: F.batch_norm(x), ValueError, "running_mean and running_var are needed outside"),
        (lambda x: F.group_norm(x, 3), mg.ShapeError, "a multiple of num_groups=3"),
        (
            lambda x: F.group_norm(x, 2, mg.Tensor(np.ones(2))),
            mg.ShapeError,
            r"weight of shape \(2,\) for x of shape \(2, 4\)",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(mg.Tensor(np.ones((2, 4))))
