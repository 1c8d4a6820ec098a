"""LayerNorm and column sums on CUDA, through the CPU shim."""

import numpy as np
import pytest

from minigrad.kernels.cuda.columns import column_sums
from tests.gpu.twins import PRECISIONS, SCHEDULES, assert_close, check_twin

SHAPES = [(1, 64), (2, 96), (127, 64), (128, 384), (2, 129, 96), (200, 64), (3, 1), (5, 33), (0, 8)]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm(gpu, rng, shape, dtype):
    x, residual = rng.standard_normal((2, *shape)) * 3 + 1
    w, b = rng.standard_normal((2, shape[-1]))
    check_twin(gpu, "layer_norm", [x, w, b], dtype, eps=1e-5)
    check_twin(gpu, "add_layer_norm", [x, residual, w, b], dtype, eps=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_layer_norm_under_every_schedule(gpu, rng, schedule):
    x, residual = rng.standard_normal((2, 300, 65))
    w, b = rng.standard_normal((2, 65))
    check_twin(gpu, "add_layer_norm", [x, residual, w, b], np.float32, schedule, eps=1e-5)


@pytest.mark.parametrize("given", [(True, False), (False, True), (False, False)])
def test_layer_norm_without_weight_or_bias(gpu, rng, given):
    x = rng.standard_normal((9, 40))
    w, b = (v if g else None for v, g in zip(rng.standard_normal((2, 40)), given, strict=True))
    check_twin(gpu, "layer_norm", [x, w, b], np.float64, eps=1e-3)


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_layer_norm_computes_what_is_wanted(gpu, rng, needs):
    x, (w, b) = rng.standard_normal((9, 40)), rng.standard_normal((2, 40))
    check_twin(gpu, "layer_norm", [x, w, b], np.float64, needs=needs, eps=1e-5)


def test_layer_norm_of_a_far_away_mean(gpu, rng):
    """Two passes: the variance is not a difference of large numbers."""
    x, (w, b) = rng.standard_normal((4, 64)) + 1000, rng.standard_normal((2, 64))
    # The inputs have steps of 6e-5 there, and so have the centred values.
    check_twin(gpu, "layer_norm", [x, w, b], np.float32, tolerance=2e-4, eps=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 127, 128, 129, 1000])
def test_column_sums(gpu, rng, rows):
    a, b = rng.standard_normal((2, rows, 37))
    both = column_sums(gpu.asarray(a), gpu.asarray(b))
    assert_close(both, np.stack([a.sum(0), (a * b).sum(0)]), "sums and products")
    assert_close(column_sums(gpu.asarray(a)), a.sum(0)[None], "sums")
