"""Attention on CUDA, through the CPU shim."""

import numpy as np
import pytest

from minigrad.kernels.cuda import KERNELS
from minigrad.ops import TEXTBOOK
from tests.gpu.twins import PRECISIONS, SCHEDULES, check_twin

# Batch, T, heads, head size: around the tile of 128 (64, 32, 16) rows, each padded head size, head
# sizes that are not multiples of 16, of 4, of 2.
SHAPES = [
    (2, 1, 2, 16),
    (1, 2, 1, 16),
    (1, 127, 1, 16),
    (1, 128, 1, 16),
    (1, 129, 2, 16),
    (1, 200, 1, 32),
    (1, 127, 1, 64),
    (1, 129, 1, 24),
    (1, 70, 1, 128),
    (2, 33, 3, 5),
    (1, 20, 1, 100),
]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_causal_attention(gpu, rng, shape, dtype):
    batch, time, heads, size = shape
    qkv = rng.standard_normal((batch, time, 3 * heads * size))
    check_twin(gpu, "multi_head_attention", [qkv], dtype, num_heads=heads, causal=True)


@pytest.mark.parametrize("shape", [(1, 129, 1, 16), (1, 37, 2, 64), (1, 1, 1, 3)])
def test_attention_to_all(gpu, rng, shape):
    batch, time, heads, size = shape
    qkv = rng.standard_normal((batch, time, 3 * heads * size))
    check_twin(gpu, "multi_head_attention", [qkv], np.float32, num_heads=heads, causal=False)


def test_a_sequence_of_1024(gpu, rng):
    qkv = rng.standard_normal((1, 1024, 3 * 20))
    check_twin(gpu, "multi_head_attention", [qkv], np.float32, num_heads=1, causal=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("size", [16, 48])
def test_attention_under_every_schedule(gpu, rng, size, schedule):
    qkv = rng.standard_normal((2, 50, 3 * size))
    statics = {"num_heads": 1, "causal": True}
    check_twin(gpu, "multi_head_attention", [qkv], np.float32, schedule, **statics)


def test_large_scores_do_not_overflow(gpu, rng):
    qkv = rng.standard_normal((1, 40, 3 * 16)) * 30  # scores of several thousands
    # P is one-hot nearly everywhere; what rounding of a score of 10,000 does to it is 1e-3.
    statics = {"num_heads": 1, "causal": True}
    check_twin(gpu, "multi_head_attention", [qkv], np.float64, tolerance=1e-10, **statics)
    y, _ = KERNELS[TEXTBOOK["multi_head_attention"]].forward(
        gpu.asarray(qkv.astype(np.float32)), **statics
    )
    assert np.isfinite(y.get()).all()


def test_results_do_not_depend_on_the_schedule(gpu, rng):
    """Not by a bit: all sums have one order."""
    qkv = gpu.asarray(rng.standard_normal((1, 150, 96)).astype(np.float32))
    results = []
    for schedule in SCHEDULES:
        gpu.engine.schedule = schedule
        y, saved = KERNELS[TEXTBOOK["multi_head_attention"]].forward(qkv, num_heads=2, causal=True)
        statics = {"num_heads": 2, "causal": True}
        (dqkv,) = KERNELS[TEXTBOOK["multi_head_attention"]].backward(y, saved, (True,), **statics)
        results.append((y.get().tobytes(), dqkv.get().tobytes()))
    assert len(set(results)) == 1


def test_heads_that_are_too_large_or_do_not_fit_are_refused(gpu):
    forward = KERNELS[TEXTBOOK["multi_head_attention"]].forward
    with pytest.raises(ValueError, match="size 129: the kernel takes up to 128"):
        forward(gpu.zeros((1, 2, 3 * 129)), num_heads=1, causal=True)
    with pytest.raises(ValueError, match="are not 3 times 2 heads"):
        forward(gpu.zeros((1, 2, 9)), num_heads=2, causal=True)
    with pytest.raises(ValueError, match="a GPU takes 65,535"):
        forward(gpu.zeros((65536, 1, 3)), num_heads=1, causal=True)
