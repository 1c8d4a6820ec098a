"""LayerNorm and column sums on CUDA, through the CPU shim."""

import numpy as np
import pytest

from minigrad.kernels.cuda import KERNELS, columns
from minigrad.kernels.cuda.columns import (
    column_sums,
    masked_column_sums,
    sum_parts,
)
from minigrad.kernels.cuda.scratch import counters
from minigrad.ops import TEXTBOOK
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


def test_the_gradients_of_layer_norm_are_one_launch(gpu, rng):
    x, w, b = (gpu.asarray(rng.standard_normal(s)) for s in ((300, 40), (40,), (40,)))
    y, saved = KERNELS[TEXTBOOK["layer_norm"]].forward(x, w, b, eps=1e-5)
    KERNELS[TEXTBOOK["layer_norm"]].backward(y, saved, (True, True, True), eps=1e-5)
    assert gpu.counts["layer_norm_backward"] == 1 and gpu.counts["column_sums"] == 0


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
    """The variance is computed in a second pass, not as a difference of large numbers."""
    x, (w, b) = rng.standard_normal((4, 64)) + 1000, rng.standard_normal((2, 64))
    # Neighbouring floats differ by 6e-5 there, so the centred values have such errors.
    check_twin(gpu, "layer_norm", [x, w, b], np.float32, tolerance=2e-4, eps=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rows", [0, 1, 127, 128, 129, 1000])
def test_column_sums(gpu, rng, rows, schedule):
    gpu.engine.schedule = schedule
    a, b = rng.standard_normal((2, rows, 37))
    on_device = gpu.asarray(a), gpu.asarray(b)
    assert_close(column_sums(on_device[0]), a.sum(0), "sums")
    masked, sums = masked_column_sums(*on_device)
    np.testing.assert_array_equal(masked.get(), a * (b > 0))
    assert_close(sums, (a * (b > 0)).sum(0), "masked sums")
    assert_close(sum_parts(on_device[0]), a.sum(0), "parts")
    assert gpu.counts["column_sums"] == 3


def test_more_rows_than_parts_and_the_same_every_time(gpu, rng, monkeypatch):
    monkeypatch.setattr(columns, "MOST_PARTS", 3)
    a = rng.standard_normal((1000, 5)).astype(np.float32)
    found = set()
    for schedule in SCHEDULES:
        gpu.engine.schedule = schedule
        sums = column_sums(gpu.asarray(a))
        assert_close(sums, a.astype(np.float64).sum(0), "sums")
        found.add(sums.get().tobytes())
    assert len(found) == 1


def test_sums_go_where_they_are_wanted(gpu, rng):
    flat, a = gpu.zeros(50), rng.standard_normal((300, 7))
    place = flat[3:10]
    assert column_sums(gpu.asarray(a), place) is place
    wanted = np.zeros(50)
    wanted[3:10] = a.sum(0)
    assert_close(flat, wanted, "the flat array")


def test_a_stream_that_captures_has_had_a_run_before(gpu, rng):
    a = gpu.asarray(rng.standard_normal((300, 7)))
    stream = gpu.cuda.Stream(non_blocking=True)
    first, second = gpu.cuda.MemoryPool(), gpu.cuda.MemoryPool()
    with stream:
        stream.begin_capture()
        with gpu.cuda.using_allocator(first.malloc), pytest.raises(RuntimeError, match="run the f"):
            column_sums(a)
        stream.end_capture()
        column_sums(a)
        stream.begin_capture()
        with gpu.cuda.using_allocator(second.malloc):
            sums = column_sums(a)
        graph = stream.end_capture()
        stream.synchronize()
    for _ in range(2):
        graph.launch()
        assert_close(sums, a.get().sum(0), "sums")
    with pytest.raises(ValueError, match="70000 counters"):
        counters(70_000)
