"""The layers: shapes, initial values, modes, and their gradients."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor, gradcheck_module, nn
from tests.minigrad.compare import assert_close

RNG = mg.Generator(0)
LAYERS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "Linear": (lambda: nn.Linear(4, 3, rng=RNG), (2, 5, 4)),
    "Linear without bias": (lambda: nn.Linear(4, 3, bias=False, rng=RNG), (2, 4)),
    "Embedding": (lambda: nn.Embedding(6, 3, rng=RNG), np.array([[1, 5, 1], [0, 0, 2]])),
    "LayerNorm": (lambda: nn.LayerNorm(4), (3, 4)),
    "LayerNorm without bias": (lambda: nn.LayerNorm(4, bias=False), (3, 4)),
    "RMSNorm": (lambda: nn.RMSNorm(4), (3, 4)),
    "Dropout in evaluation": (
        lambda: nn.Sequential(nn.Linear(4, 4, rng=RNG), nn.Dropout(0.5, rng=RNG)).eval(),
        (3, 4),
    ),
    **{
        name: (
            lambda name=name: nn.Sequential(nn.Linear(4, 4, rng=RNG), getattr(nn, name)()),
            (3, 4),
        )
        for name in ("ReLU", "GELU", "SiLU", "Sigmoid", "Tanh")
    },
}


@pytest.mark.parametrize("context", [mg.textbook, mg.enable_grad])
@pytest.mark.parametrize("label", LAYERS)
def test_gradients(label: str, context: Any, rng: np.random.Generator) -> None:
    make, given = LAYERS[label]
    layer = make().astype("float64")
    for p in layer.parameters():
        p.assign(p.numpy() + 0.3 * rng.standard_normal(p.shape))
    if isinstance(given, tuple):
        x = Tensor(rng.standard_normal(given), requires_grad=True)
    else:
        x = Tensor(given)
    with context():
        gradcheck_module(layer, [x])


@pytest.mark.parametrize("label", LAYERS)
def test_float32_stays_float32(label: str) -> None:
    make, given = LAYERS[label]
    layer = make()
    assert all(p.dtype == np.float32 for p in layer.parameters())
    x = mg.ones(given) if isinstance(given, tuple) else Tensor(given)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == np.float32
    assert all(p.grad is not None and p.grad.dtype == np.float32 for p in layer.parameters())


def test_linear() -> None:
    layer = nn.Linear(3, 2, rng=mg.Generator(1))
    assert layer.weight.shape == (2, 3) and layer.bias is not None and layer.bias.shape == (2,)
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    expected = x @ layer.weight.numpy().T + layer.bias.numpy()
    assert_close(layer(Tensor(x)).numpy(), expected, 1e-6)
    assert_close(layer(Tensor(x), activation="relu").numpy(), np.maximum(expected, 0), 1e-6)
    without = nn.Linear(3, 2, bias=False, rng=mg.Generator(1))
    assert without.bias is None and without.num_parameters() == 6
    with pytest.raises(ShapeError, match=r"linear: x of shape \(2, 4\)"):
        layer(mg.ones((2, 4)))


def test_initial_values_of_linear() -> None:
    layer = nn.Linear(100, 300, rng=mg.Generator(0), dtype="float64")
    assert layer.bias is not None
    for p in (layer.weight, layer.bias):
        values, bound = p.numpy(), 1 / sqrt(100)
        assert p.dtype == np.float64 and np.abs(values).max() <= bound
        assert abs(values.std() / (bound / sqrt(3)) - 1) < 0.1, "uniform"


def test_embedding() -> None:
    layer = nn.Embedding(1000, 50, std=0.02, rng=mg.Generator(0))
    assert abs(layer.weight.numpy().std() / 0.02 - 1) < 0.02
    assert abs(nn.Embedding(1000, 50, rng=mg.Generator(0)).weight.numpy().std() - 1) < 0.02
    ids = np.array([[3, 999], [0, 3]])
    assert np.array_equal(layer(ids).numpy(), layer.weight.numpy()[ids])
    with pytest.raises(IndexError, match="id 1000 is out of range for a vocabulary of 1000"):
        layer(np.array([1000]))


def test_the_same_seed_gives_the_same_layer() -> None:
    make = lambda seed: nn.Linear(3, 3, rng=mg.Generator(seed)).weight.tolist()  # noqa: E731
    assert make(4) == make(4) != make(5)


def test_norms_start_as_the_identity_of_scale(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 8))
    y = nn.LayerNorm(8, dtype="float64")(Tensor(x)).numpy()
    assert_close(y, (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5))
    y = nn.RMSNorm(8, dtype="float64")(Tensor(x)).numpy()
    assert_close(y, x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5))


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_norms_take_a_residual(kind: Any, rng: np.random.Generator) -> None:
    norm = kind(8, dtype="float64")
    x, residual = (Tensor(rng.standard_normal((5, 8))) for _ in range(2))
    assert_close(norm(x, residual).numpy(), norm(x + residual).numpy())


def test_dropout_modes() -> None:
    layer, x = nn.Dropout(0.4, rng=mg.Generator(0)), mg.ones((100, 100))
    dropped = (layer(x).numpy() == 0).mean()
    assert 0.37 < dropped < 0.43
    assert layer.eval()(x) is x
    assert (layer.train()(x).numpy() == 0).any()
    assert nn.Dropout(0.0, rng=mg.Generator(0))(x) is x


@pytest.mark.parametrize("p", [1.0, -0.5, 2])
def test_dropout_of_impossible_probability(p: float) -> None:
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\)"):
        nn.Dropout(p, rng=mg.Generator(0))


def test_layers_need_a_generator() -> None:
    """There is no global random state."""
    with pytest.raises(TypeError, match="rng"):
        nn.Linear(2, 2)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(0, 2, rng=RNG),
        lambda: nn.Linear(2, -1, rng=RNG),
        lambda: nn.Embedding(0, 2, rng=RNG),
        lambda: nn.LayerNorm(0),
        lambda: nn.RMSNorm(0),
    ],
)
def test_sizes_must_be_positive(make: Any) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        make()


def test_activations_are_the_functions(rng: np.random.Generator) -> None:
    x = Tensor(rng.standard_normal((3, 4)))
    pairs = [
        (nn.ReLU(), mg.relu(x)),
        (nn.GELU(), mg.gelu(x)),
        (nn.GELU("tanh"), mg.gelu(x, "tanh")),
        (nn.SiLU(), mg.silu(x)),
        (nn.Sigmoid(), mg.sigmoid(x)),
        (nn.Tanh(), mg.tanh(x)),
    ]
    for module, expected in pairs:
        assert np.array_equal(module(x).numpy(), expected.numpy())
