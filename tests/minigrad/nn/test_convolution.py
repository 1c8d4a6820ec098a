"""Compares convolutions with the formula, element by element, and with PyTorch's."""

from itertools import product
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_close


def by_definition(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> np.ndarray:
    """y[n, o, t] = b[o] + Σ_c Σ_p w[o, c, p]·x[n, c, t·stride + p·dilation - padding]"""
    axes = x.ndim - 2
    stride, padding, dilation = (
        (v,) * axes if isinstance(v, int) else v for v in (stride, padding, dilation)
    )
    size, kernel = x.shape[2:], w.shape[2:]
    out = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    )
    y = np.zeros((len(x), len(w), *out))
    inputs, outputs = w.shape[1], len(w) // groups
    for n, o, c in product(range(len(x)), range(len(w)), range(inputs)):
        for t in product(*map(range, out)):
            for p in product(*map(range, kernel)):
                at = tuple(
                    i * s + j * d - q
                    for i, s, j, d, q in zip(t, stride, p, dilation, padding, strict=True)
                )
                if all(0 <= a < n_ for a, n_ in zip(at, size, strict=True)):
                    y[(n, o, *t)] += w[(o, c, *p)] * x[(n, o // outputs * inputs + c, *at)]
    return y + b.reshape(-1, *(1,) * axes)


CASES: dict[str, tuple[Any, ...]] = {
    "plain": ((2, 3, 7), (4, 3, 3), {}),
    "all settings": ((2, 4, 9), (6, 2, 3), {"stride": 2, "padding": 3, "dilation": 2, "groups": 2}),
    "a channel a group": ((1, 3, 6), (6, 1, 2), {"groups": 3}),
    "images": ((2, 3, 6, 5), (4, 3, 3, 2), {"padding": 1}),
    "pairs": (
        (2, 2, 7, 8),
        (3, 2, 2, 3),
        {"stride": (1, 2), "padding": (2, 0), "dilation": (3, 1)},
    ),
    "a kernel of 1": ((2, 5, 3, 3), (4, 5, 1, 1), {}),
}


@pytest.mark.parametrize("textbook", [False, True])
@pytest.mark.parametrize("label", CASES)
def test_the_formula(label: str, textbook: bool) -> None:
    x_shape, w_shape, settings = CASES[label]
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s) for s in (x_shape, w_shape, w_shape[:1]))
    convolve = F.conv1d if x.ndim == 3 else F.conv2d
    full = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **settings}
    if textbook:
        with mg.textbook():
            y = convolve(mg.Tensor(x), mg.Tensor(w), mg.Tensor(b), **settings)
    else:
        y = convolve(mg.Tensor(x), mg.Tensor(w), mg.Tensor(b), **settings)
    assert_close(y.numpy(), by_definition(x, w, b, **full), 1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("label", CASES)
def test_value_and_gradients_are_torchs(label: str, dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there to compare with")
    x_shape, w_shape, settings = CASES[label]
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1])]
    ours = [mg.Tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    name = "conv1d" if len(x_shape) == 3 else "conv2d"
    y = getattr(F, name)(*ours, **settings)
    z = getattr(torch.nn.functional, name)(*theirs, **settings)
    dy = rng.standard_normal(y.shape).astype(dtype)
    y.backward(mg.Tensor(dy))
    z.backward(torch.tensor(dy))
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    assert_close(y.numpy(), z.detach().numpy(), tolerance)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.grad.numpy(), b.grad.numpy(), tolerance)


def test_same_padding_keeps_the_size_and_puts_an_odd_zero_at_the_end() -> None:
    x = mg.Tensor([[[1.0, 2.0, 3.0, 4.0]]])
    y = F.conv1d(x, mg.Tensor([[[1.0, 10.0]]]), padding="same")
    assert np.array_equal(y.numpy(), [[[21, 32, 43, 4]]])
    y = F.conv1d(x, mg.Tensor([[[1.0, 0.0, 10.0]]]), padding="same", dilation=2)
    assert np.array_equal(y.numpy(), [[[30, 40, 1, 2]]])
    y = F.conv1d(x, mg.Tensor([[[1.0, 10.0]]]), padding="valid")
    assert np.array_equal(y.numpy(), [[[21, 32, 43]]])


def test_without_a_batch_and_with_an_empty_one() -> None:
    layer = nn.Conv2d(3, 4, 3, rng=mg.Generator(0))
    x = np.random.default_rng(0).standard_normal((3, 5, 6)).astype(np.float32)
    alone, batch = layer(mg.Tensor(x)), layer(mg.Tensor(x[None]))
    assert np.array_equal(alone.numpy(), batch.numpy()[0])
    nothing = mg.Tensor(np.zeros((0, 3, 5, 6), np.float32), requires_grad=True)
    y = layer(nothing)
    assert y.shape == (0, 4, 3, 4)
    y.sum().backward()
    assert nothing.grad.shape == nothing.shape
    assert np.array_equal(layer.weight.grad.numpy(), np.zeros(layer.weight.shape))


def test_layers_have_torchs_names_shapes_and_initial_spread() -> None:
    layer = nn.Conv2d(6, 8, (3, 5), stride=2, padding=1, groups=2, rng=mg.Generator(0))
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert layer.weight.shape == (8, 3, 3, 5)
    bound = 1 / np.sqrt(3 * 3 * 5)
    for values in (layer.weight.numpy(), layer.bias.numpy()):
        assert np.abs(values).max() <= bound
    assert np.abs(layer.weight.numpy()).max() > 0.95 * bound
    assert repr(layer) == "Conv2d(6 -> 8, kernel (3, 5), stride=2, padding=1, groups=2)"
    assert repr(nn.Conv1d(1, 2, 3, bias=False, rng=mg.Generator(0))) == (
        "Conv1d(1 -> 2, kernel (3,), no bias)"
    )
    assert layer(mg.Tensor(np.zeros((1, 6, 7, 9), np.float32))).shape == (1, 8, 4, 4)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
def test_gradients_of_the_layers(kind: Any) -> None:
    axes = kind.axes
    layer = kind(2, 3, 2, padding=1, rng=mg.Generator(0), dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((2, 2, *(4,) * axes))
    mg.gradcheck_module(layer, [mg.Tensor(x, requires_grad=True)])


def ones(*shape: int) -> mg.Tensor:
    return mg.Tensor(np.ones(shape, np.float32))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.conv1d(ones(2, 3), ones(4, 3)),
            mg.ShapeError,
            r"conv1d: x of shape \(2, 3\) and weight of shape \(4, 3\): x must have 3 axes",
        ),
        (
            lambda: F.conv2d(ones(1, 3, 5, 5), ones(4, 2, 3, 3)),
            mg.ShapeError,
            r"conv2d: 3 channels of x in 1 group\(s\) do not fit weight of shape \(4, 2, 3, 3\)",
        ),
        (
            lambda: F.conv1d(ones(1, 4, 5), ones(3, 2, 2), groups=2),
            mg.ShapeError,
            "with O a multiple of groups",
        ),
        (
            lambda: F.conv1d(ones(1, 3, 5), ones(4, 3, 2), ones(3)),
            mg.ShapeError,
            r"bias of shape \(3,\) for weight",
        ),
        (
            lambda: F.conv1d(ones(1, 3, 4), ones(4, 3, 3), padding=1, dilation=3),
            mg.ShapeError,
            r"a kernel of \(3,\) with dilation \(3,\) is larger than the padded input of \(6,\)",
        ),
        (
            lambda: F.conv2d(ones(1, 1, 4, 4), ones(1, 1, 2, 2), stride=(1, 0)),
            ValueError,
            r"conv2d: stride must be a number from 1 on, or 2 of them, not \(1, 0\)",
        ),
        (
            lambda: F.conv2d(ones(1, 1, 4, 4), ones(1, 1, 2, 2), padding=(1, 2, 3)),
            ValueError,
            r"padding must be a number from 0 on, or 2 of them, not \(1, 2, 3\)",
        ),
        (
            lambda: F.conv1d(ones(1, 1, 4), ones(1, 1, 2), padding="full"),
            ValueError,
            'padding must be a number, "same" or "valid", not \'full\'',
        ),
        (
            lambda: F.conv1d(ones(1, 1, 4), ones(1, 1, 2), dilation=0),
            ValueError,
            "dilation must be a number from 1 on",
        ),
        (
            lambda: F.conv2d(ones(1, 0, 4, 4), ones(1, 1, 2, 2), groups=0),
            mg.ShapeError,
            r"0 channels of x in 0 group\(s\) do not fit",
        ),
        (
            lambda: F.conv2d(ones(4, 4), ones(1, 1, 2, 2)),
            mg.ShapeError,
            r"x must have 4 axes \(B, C, ...\) or 3, weight 4",
        ),
        (
            lambda: F.conv1d(ones(1, 1, 4), ones(1, 1, 2), padding="same", stride=2),
            ValueError,
            r'padding="same" needs stride 1, not \(2,\)',
        ),
        (
            lambda: nn.Conv1d(3, 4, 2, groups=2, rng=mg.Generator(0)),
            ValueError,
            "Conv1d: 3 and 4 channels cannot be cut into 2 equal groups",
        ),
        (
            lambda: nn.Conv1d(0, 4, 2, rng=mg.Generator(0)),
            ValueError,
            "Conv1d: in_channels, out_channels and groups must be at least 1, they are 0, 4 and 1",
        ),
        (
            lambda: nn.Conv2d(1, 4, 0, rng=mg.Generator(0)),
            ValueError,
            "Conv2d: kernel_size must be a number from 1 on, or 2 of them, not 0",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float32"])
def test_integers_are_convolved_as_floats(dtype: str) -> None:
    x = np.array([[[1, 0, 1, 1]]]).astype(dtype)
    layer = nn.Conv1d(1, 2, 3, padding="same", rng=mg.Generator(0))
    y = layer(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.detach().numpy(), layer(x.astype("float32")).detach().numpy())
