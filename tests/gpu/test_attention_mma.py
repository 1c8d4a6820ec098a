"""Attention on tensor cores, through the CPU shim.

Results are compared with the textbook, and with a model of it that rounds where the kernel rounds.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest

import minigrad as mg
from minigrad.kernels.cuda import KERNELS
from minigrad.ops import TEXTBOOK
from minigrad.precision import precision
from tests.gpu.twins import ROUNDED_TOLERANCE, SCHEDULES, assert_close, rounded

ATTENTION, NAMES = KERNELS[TEXTBOOK["multi_head_attention"]], ("tf32", "bf16")
KEYS_AT_ONCE = 32  # keys after which the kernel updates its running maximum

# Tolerances of the root mean square of a result, compared with the model. Both round the same
# numbers. Where a number lies so close to the middle between two neighbours that an error of
# float32 decides, they differ by a whole unit (2^-7 or 2^-10 of a weight). Without such a weight
# they agree to 1e-7. For comparison: the textbook on rounded inputs, which does not round P,
# differs by 1.2e-4 in TF32 and 1e-3 in bfloat16.
MODEL_TOLERANCE = {"tf32": 1e-4, "bf16": 2e-4}


class Result(NamedTuple):
    y: Any
    log_sum: Any
    dqkv: Any


def model(qkv: np.ndarray, dy: np.ndarray, heads: int, causal: bool, rounded: Any) -> Result:
    """The formulas with every operand of a matmul `rounded`, and nothing else."""
    batch, time, channels = dy.shape

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(batch, time, heads, -1).swapaxes(1, 2).astype(np.float64)

    def merge(x: np.ndarray) -> np.ndarray:
        return x.swapaxes(1, 2).reshape(batch, time, channels)

    q, k, v = (rounded(split(x)) for x in np.split(qkv, 3, axis=2))  # (B, H, T, D)
    scale = 1 / np.sqrt(q.shape[-1])
    scores = q @ k.swapaxes(2, 3) * scale
    hidden = np.arange(time) > np.arange(time)[:, None] if causal else np.zeros((time, time), bool)
    scores[..., hidden] = -np.inf
    top = scores.max(-1, keepdims=True)
    log_sum = top + np.log(np.exp(scores - top).sum(-1, keepdims=True))
    y = np.zeros_like(q)
    for first in range(0, time, KEYS_AT_ONCE):  # weights are rounded relative to the maximum so far
        part = slice(first, first + KEYS_AT_ONCE)
        now = scores[..., : first + KEYS_AT_ONCE].max(-1, keepdims=True)
        y += rounded(np.exp(scores[..., part] - now)) @ v[..., part, :] * np.exp(now - log_sum)
    p = np.exp(scores - log_sum)
    delta = (split(dy) * y).sum(-1, keepdims=True)
    d = rounded(split(dy))
    ds = rounded(p * (d @ v.swapaxes(2, 3) - delta))
    dv = rounded(p).swapaxes(2, 3) @ d
    gradients = (ds @ k * scale, ds.swapaxes(2, 3) @ q * scale, dv)
    return Result(merge(y), log_sum[..., 0], np.concatenate([merge(g) for g in gradients], axis=2))


def run(gpu: Any, qkv: Any, dy: Any, name: str, heads: int = 1, causal: bool = True) -> Result:
    """The kernel's results, on the device. Backward must use the precision of forward."""
    statics = {"num_heads": heads, "causal": causal}
    with precision(name):
        y, saved = ATTENTION.forward(qkv, **statics)
    (dqkv,) = ATTENTION.backward(dy, saved, (True,), **statics)
    return Result(y, saved[2], dqkv)


def draw(rng: np.random.Generator, batch: int, time: int, heads: int, size: int) -> Any:
    shapes = (batch, time, 3 * heads * size), (batch, time, heads * size)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def exact(qkv: np.ndarray, dy: np.ndarray, heads: int, causal: bool) -> Result:
    """The textbook in double precision."""
    textbook, statics = TEXTBOOK["multi_head_attention"], {"num_heads": heads, "causal": causal}
    y, saved = textbook.forward(np, qkv.astype(np.float64), **statics)
    (dqkv,) = textbook.backward(np, dy.astype(np.float64), saved, (True,), **statics)
    return Result(y, None, dqkv)


def check(gpu: Any, qkv: np.ndarray, dy: np.ndarray, name: str, heads: int, causal: bool) -> None:
    got = check_model(gpu, qkv, dy, name, heads, causal)
    y, _, dqkv = exact(qkv, dy, heads, causal)
    assert_close(got.y, y, "y", ROUNDED_TOLERANCE[name])
    assert_close(got.dqkv, dqkv, "dqkv", ROUNDED_TOLERANCE[name])


def check_model(
    gpu: Any,
    qkv: np.ndarray,
    dy: np.ndarray,
    name: str,
    heads: int,
    causal: bool,
    tolerance: float | None = None,
) -> Result:
    """The kernel's results equal the model's on average, and ln Σ e^S for every row."""
    got = run(gpu, gpu.asarray(qkv), gpu.asarray(dy), name, heads, causal)
    capability = gpu.cuda.Device().compute_capability
    wanted = model(
        qkv, dy, heads, causal, lambda x: rounded(x, factors=name, capability=capability)
    )
    for what, ours, theirs in zip(Result._fields, got, wanted, strict=True):
        assert ours.dtype == np.float32 and ours.shape == theirs.shape
        error = np.sqrt(np.mean((ours.get() - theirs) ** 2) / np.mean(theirs**2))
        limit = MODEL_TOLERANCE[name] if tolerance is None else tolerance
        assert error < limit, f"{what}: off by {error:.1e} of the model"
    # Tensor cores may truncate where a float32 sum would round: one unit in each of 16 steps.
    assert_close(got.log_sum, wanted.log_sum, "ln Σ e^S", 4e-6)
    return got


# Batch, T, heads, head size: around tiles of 32 and blocks of 64 and 128 rows, each padded head
# size, head sizes that are not multiples of 16, of 4, of 2.
SHAPES = [
    (2, 1, 2, 16),
    (1, 2, 1, 64),
    (1, 31, 2, 8),
    (1, 63, 1, 32),
    (2, 64, 1, 16),
    (1, 65, 2, 24),
    (1, 65, 1, 64),
    (1, 127, 2, 16),
    (1, 128, 1, 64),
    (1, 129, 1, 32),
    (1, 129, 1, 128),
    (1, 200, 1, 16),
    (1, 200, 1, 64),
    (1, 33, 1, 96),
    (2, 33, 3, 5),
    (1, 20, 1, 102),
    (1, 40, 3, 1),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_causal_attention(gpu: Any, rng: np.random.Generator, shape: Any, name: str) -> None:
    check(gpu, *draw(rng, *shape), name, heads=shape[2], causal=True)
    assert gpu.counts["attention_forward_mma"] == gpu.counts["attention_backward_mma"] == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2, 65, 2, 16), (1, 129, 1, 64), (1, 1, 1, 3)], ids=str)
def test_attention_to_all(gpu: Any, rng: np.random.Generator, shape: Any, name: str) -> None:
    check(gpu, *draw(rng, *shape), name, heads=shape[2], causal=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [16, 64, 128])
def test_results_do_not_depend_on_the_schedule(
    gpu: Any, rng: np.random.Generator, size: int, name: str
) -> None:
    """Results are bitwise identical, because sums have a fixed order and no barrier is missing."""
    qkv, dy = (gpu.asarray(x) for x in draw(rng, 1, 70, 2, size))
    results = []
    for schedule in SCHEDULES:
        gpu.engine.schedule = schedule
        results.append(b"".join(x.get().tobytes() for x in run(gpu, qkv, dy, name, heads=2)))
    assert len(set(results)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_memory_that_no_four_floats_can_be_read_from_at_once(
    gpu: Any, rng: np.random.Generator, name: str
) -> None:
    arrays = [gpu.asarray(x) for x in draw(rng, 2, 40, 2, 12)]
    shifted = []
    for array in arrays:
        room = gpu.zeros((array.size + 1,), np.float32)
        room[1:] = array.reshape(-1)
        shifted.append(room[1:].reshape(array.shape))
    pairs = zip(run(gpu, *arrays, name, heads=2), run(gpu, *shifted, name, heads=2), strict=True)
    for aligned, other in pairs:
        np.testing.assert_array_equal(aligned.get(), other.get())


@pytest.mark.parametrize("name", NAMES)
def test_large_scores_do_not_overflow(gpu: Any, rng: np.random.Generator, name: str) -> None:
    qkv, dy = draw(rng, 1, 40, 1, 16)
    got = run(gpu, gpu.asarray(qkv * 30), gpu.asarray(dy), name)  # scores of several thousands
    assert all(np.isfinite(x.get()).all() for x in got)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_what_lies_beyond_the_last_row_counts_for_nothing(
    gpu: Any, rng: np.random.Generator, name: str, causal: bool
) -> None:
    """If rows beyond counted as zeros, their weights would be e^300 times the true ones."""
    qkv, dy = draw(rng, 1, 37, 1, 16)
    q, k, _ = np.split(qkv, 3, axis=2)
    q[...], k[...] = np.round(q) - 10, 8 + np.round(k)  # exact in both precisions
    # Scores of 300 are exact to 2e-5 in float32, and so are the weights e^S.
    check_model(gpu, qkv, dy, name, heads=1, causal=causal, tolerance=3e-4)


def test_deltas_of_small_heads_need_no_launch(gpu: Any, rng: np.random.Generator) -> None:
    for name in ("fp32", *NAMES):
        for size, launches in ((16, 2), (17, 3), (64, 3)):
            gpu.counts.clear()
            run(gpu, *(gpu.asarray(x) for x in draw(rng, 1, 9, 1, size)), name)
            assert gpu.counts["launches"] == launches
            assert gpu.counts["attention_delta"] == launches - 2


def test_each_precision_has_its_kernel(gpu: Any, rng: np.random.Generator) -> None:
    qkv = rng.standard_normal((1, 9, 48)).astype(np.float32)
    for name, kind, kernel in (
        ("fp32", np.float32, "attention_forward"),
        ("tf32", np.float64, "attention_forward"),  # double precision is never rounded
        ("tf32", np.float32, "attention_forward_mma"),
    ):
        gpu.counts.clear()
        with precision(name):
            x = mg.Tensor(qkv.astype(kind), device="gpu")
            mg.nn.functional.multi_head_attention(x, num_heads=1, causal=True)
        assert gpu.counts[kernel] == gpu.counts["launches"] == 1


def test_tf32_is_finer_than_bf16(gpu: Any, rng: np.random.Generator) -> None:
    """And fp32 is finer than both. This finds a precision setting without effect."""
    qkv, dy = draw(rng, 1, 50, 2, 32)
    y, _, dqkv = exact(qkv, dy, 2, True)
    errors = {}
    for name in ("fp32", *NAMES):
        got = run(gpu, gpu.asarray(qkv), gpu.asarray(dy), name, heads=2)
        errors[name] = [np.abs(a.get() - b).max() for a, b in ((got.y, y), (got.dqkv, dqkv))]
    for i in range(2):
        assert 30 * errors["fp32"][i] < errors["tf32"][i] < errors["bf16"][i] / 3
