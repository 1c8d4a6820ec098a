"""The helper functions that pages call on plain arrays."""

import math

import numpy as np

from minigrad.ops import special


def test_erf_on_arrays_keeps_float32() -> None:
    x = np.linspace(-4, 4, 101, dtype=np.float32)
    y = special.erf(np, x)
    assert y.dtype == np.float32
    assert np.abs(y - [math.erf(v) for v in x]).max() <= 2 * np.finfo(np.float32).eps
    assert special.erf(np, np.array([0.0, -np.inf])).tolist() == [0, -1]


def test_erf_is_odd() -> None:
    x = np.linspace(0, 8, 333)
    assert np.array_equal(special.erf(np, -x), -special.erf(np, x))


def test_logistic_is_symmetric_and_bounded() -> None:
    x = np.array([-1e308, -800.0, -1.0, 0.0, 1.0, 800.0, 1e308])
    y = special.logistic(np, x)
    assert y[0] == 0 and y[-1] == 1 and y[3] == 0.5
    assert np.abs(y + special.logistic(np, -x) - 1).max() <= 2e-16
    assert abs(y[4] - 1 / (1 + math.exp(-1))) <= 2e-16


def test_scatter_add_is_the_adjoint_of_indexing(rng: np.random.Generator) -> None:
    """<scatter(y), x> = <y, x[index]> for any x and y."""
    x = rng.standard_normal((4, 5))
    for index in (2, (slice(None), -1), (..., None, 1), np.array([1, 1, 3]), x > 0, (None, [0, 0])):
        y = rng.standard_normal(x[index].shape)
        scattered = special.scatter_add(np, y, index, x.shape)
        assert math.isclose((scattered * x).sum(), (y * x[index]).sum(), rel_tol=1e-12)
