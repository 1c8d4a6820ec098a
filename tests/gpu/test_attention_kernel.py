"""Attention on CUDA, through the CPU shim."""

from types import SimpleNamespace

import numpy as np
import pytest

from minigrad.kernels.cuda import KERNELS
from minigrad.ops import TEXTBOOK
from tests.gpu.sources import source
from tests.gpu.twins import PRECISIONS, SCHEDULES, check_twin, untouched

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
    # P is one-hot nearly everywhere. Rounding a score of 10,000 changes P by 1e-3.
    statics = {"num_heads": 1, "causal": True}
    check_twin(gpu, "multi_head_attention", [qkv], np.float64, tolerance=1e-10, **statics)
    y, _ = KERNELS[TEXTBOOK["multi_head_attention"]].forward(
        gpu.asarray(qkv.astype(np.float32)), **statics
    )
    assert np.isfinite(y.get()).all()


def test_results_do_not_depend_on_the_schedule(gpu, rng):
    """Results are bitwise identical, because all sums have a fixed order."""
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


def test_more_rows_than_kernels_count_are_the_textbooks(gpu):
    array = SimpleNamespace(shape=(40_000, 60_000, 3), dtype=np.dtype(np.float32))
    reason = KERNELS[TEXTBOOK["multi_head_attention"]].supports(array, num_heads=1, causal=True)
    assert "rows of all heads" in reason


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["attention", "attention_mma"])
def test_sequences_beyond_two_to_the_32_rows(libraries, kernel):
    """Runs the first block of a late sequence, whose row numbers need more than 32 bits."""
    batch, time, ours = 65_535, 70_000, 50  # one head of one channel; `ours` rows are checked
    before = np.random.default_rng(0).standard_normal((ours, 3)).astype(np.float32)
    dy = np.random.default_rng(1).standard_normal((ours, 1)).astype(np.float32)
    found = []
    for sequences, length in ((1, ours), (batch, time)):
        qkv, dqkv = (untouched((sequences, length, 3)) for _ in range(2))
        y, upstream = (untouched((sequences, length, 1)) for _ in range(2))
        log_sum = untouched((sequences, 1, length))
        qkv[-1, :ours], upstream[-1, :ours] = before, dy
        sizes = [np.int32(n) for n in (length, 1, 1, True)]
        mma = kernel == "attention_mma"
        forward, backward = (
            f"attention_{name}_mma<Tf32, 16>" if mma else f"attention_{name}<float, 16>"
            for name in ("forward", "backward")
        )
        functions = libraries[source(kernel)].kernels
        blocks = -(-length // (64 if mma else 128))
        grid, last = (blocks, 1, sequences), sequences - 1
        # With tensor cores the first blocks compute the last queries, which attend to most keys.
        functions[forward](
            *(grid, (128,), (qkv, y, log_sum, *sizes, np.float32(1))),
            only=(blocks - 1 if mma else 0, 0, last),
        )
        functions[backward](
            (2 * blocks, 1, sequences),
            (128,),
            (qkv, upstream, y, log_sum, np.uint64(0), dqkv, *sizes, np.float32(1)),
            only=(2 * blocks - 1 if mma else 0, 0, last),
        )
        found.append([a[-1, :ours].copy() for a in (y, log_sum[:, 0, :, None], dqkv[..., :1])])
    for small, far in zip(*found, strict=True):
        assert np.abs(small).max() > 0.1
        np.testing.assert_array_equal(far, small)
