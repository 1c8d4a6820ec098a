"""Layers and losses accept tensors, arrays and lists, of floats and of integers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, nn
from minigrad.nn import functional as F

RNG = mg.Generator(0)
LAYERS = [
    nn.Linear(4, 3, rng=RNG),
    nn.Linear(4, 3, bias=False, rng=RNG),
    nn.LayerNorm(4),
    nn.RMSNorm(4),
    nn.Dropout(0.5, rng=RNG).eval(),
    nn.ReLU(),
    nn.GELU(),
    nn.SiLU(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Sequential(nn.Linear(4, 4, rng=RNG), nn.ReLU(), nn.LayerNorm(4)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
def test_an_array_is_as_good_as_a_tensor(layer: nn.Module, dtype: str) -> None:
    x = np.array([[1, 0, 1, 1], [0, 1, 0, 0]], dtype)
    y = layer(Tensor(x))
    for other in (layer(x), layer(x.view(np.matrix)), layer(x.tolist())):
        assert isinstance(other, Tensor) and np.allclose(other.numpy(), y.numpy(), atol=1e-3)
    assert layer(x).dtype == y.dtype
    weights = layer.parameters()
    if weights:
        wide = dtype == "float64"
        assert y.dtype == (np.float64 if wide else np.float32), "integers never widen a float"
        layer(x).sum().backward()
        assert all(p.grad is not None and p.grad.dtype == np.float32 for p in weights)
        layer.zero_grad()


def test_integers_take_the_dtype_of_the_weights() -> None:
    layer = nn.Linear(2, 2, rng=mg.Generator(0)).astype("float64")
    assert layer(np.ones((1, 2), np.int64)).dtype == np.float64
    assert F.layer_norm(np.arange(4), None, None).dtype == np.float32
    assert F.rms_norm(np.arange(4), None).dtype == np.float32
    assert F.scaled_dot_product_attention(*[np.ones((3, 2), np.int64)] * 3).dtype == np.float32
    assert F.multi_head_attention(np.ones((1, 3, 6), np.int64), num_heads=1).dtype == np.float32
    assert F.swiglu(np.ones(4, np.int64)).dtype == np.float32
    assert F.dropout(np.ones(3, np.int64), 0.5, rng=mg.Generator(0)).dtype == np.float32
    assert F.linear([[1, 2]], np.eye(2, dtype=np.float32)).tolist() == [[1, 2]]
    assert F.rotary(np.ones(2, np.int64), [0.0], [1.0]).tolist() == [-1, 1]
    assert F.embedding(np.eye(3, dtype=np.float32), [2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_a_second_input_may_be_an_array() -> None:
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    for layer in (nn.LayerNorm(4), nn.RMSNorm(4)):
        assert np.allclose(layer(x, x).numpy(), layer(Tensor(x) * 2).numpy())


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, t: F.cross_entropy(z, t),
        lambda z, t: F.cross_entropy(z, t, label_smoothing=0.1, reduction="sum"),
        lambda z, t: F.binary_cross_entropy_with_logits(z, (z > 0) * 1),
    ],
)
def test_losses_of_arrays(loss: Callable[..., Tensor]) -> None:
    logits, targets = np.array([[1.0, 2.0, -1.0], [0.0, 1.0, 0.5]], np.float32), np.array([0, 2])
    want = loss(Tensor(logits), Tensor(targets))
    got: list[Any] = [loss(logits, targets), loss(Tensor(logits), targets), want]
    assert all(isinstance(y, Tensor) and y.item() == want.item() for y in got)
    assert loss(np.array([[1, 2, -1]]), [1]).dtype == np.float32


def test_other_kinds_of_arrays_become_arrays_or_are_refused() -> None:
    matrix = Tensor(np.eye(2).view(np.matrix))
    assert type(matrix.data) is np.ndarray and (matrix * matrix).tolist() == [[1, 0], [0, 1]]
    assert matrix[0].shape == (2,) and matrix.reshape(-1).shape == (4,)
    with pytest.raises(TypeError, match=r"filled\(value\)"):
        Tensor(np.ma.masked_array([1.0, 2.0], [True, False]))
    for wrong in (
        np.array([None, 1]),
        np.array(["a"]),
        np.array([b"a"]),
        np.zeros(2, [("x", float)]),
        np.array(["2026-01-01"], "datetime64[D]"),
        np.ones(2, complex),
        "text",
        None,
        {"a": 1},
    ):
        with pytest.raises(TypeError, match="numbers or booleans"):
            Tensor(wrong)


def test_formats() -> None:
    loss = Tensor(np.float32(1.23456), requires_grad=True) * 1
    assert (
        f"{loss:.3f}" == "1.235" and f"{loss:>8.2e}" == "1.23e+00" and f"{Tensor(7):03d}" == "007"
    )
    assert f"{loss}" == str(loss) and format(Tensor([1.0])) == "Tensor([1.], dtype=float32)"
    with pytest.raises(TypeError, match=r"shape \(1,\)"):
        f"{Tensor([1.0]):.3f}"


def test_spellings() -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3))
    assert x.sum([0, 1]).item() == x.sum((0, 1)).item() == 15
    assert x.mean([0]).tolist() == x.mean(0).tolist() and x.max([1]).tolist() == [2, 5]
    assert x.var([0, 1]).item() == x.var().item()
    assert mg.logsumexp(x, [0, 1]).item() == mg.logsumexp(x).item()
    assert x.argmax(1, True).tolist() == [[2], [2]] and x.argmin(0, keepdims=True).shape == (1, 3)
    assert x.argmax(keepdims=True).shape == (1, 1)
    for make, value in ((mg.zeros, 0), (mg.ones, 1)):
        for y in (make(2, 3), make((2, 3)), make([2, 3]), make(np.int64(2), 3), make(shape=(2, 3))):
            assert y.tolist() == [[value] * 3] * 2 and y.dtype == np.float32
        assert make(2).shape == (2,) and make(()).shape == () and make(2, 0, 3).shape == (2, 0, 3)
        for y in (make(2, 3, dtype=int), make((2, 3), int), make(2, 3, int), make(2, 3, "int64")):
            assert y.dtype == np.int64 and y.shape == (2, 3)
        with pytest.raises(TypeError, match="given twice"):
            make(2, "float32", dtype="float32")
        with pytest.raises(TypeError, match="one sequence or as numbers"):
            make((2, 3), 4)
