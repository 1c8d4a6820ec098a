"""Embedding, cross-entropy, activations and dropout on CUDA, through the CPU shim."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.kernels.cuda import KERNELS, dropout
from minigrad.nn import functional as F
from minigrad.ops import TEXTBOOK
from tests.gpu.shim.build import Library
from tests.gpu.sources import source
from tests.gpu.twins import PRECISIONS, SCHEDULES, check_twin


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("id_dtype", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("vocabulary", "channels", "shape"),
    [(65, 64, (127,)), (215, 96, (2, 129)), (3, 33, (600,)), (5, 1, (1, 1)), (4, 8, (0, 2))],
)
def test_embedding(gpu, rng, vocabulary, channels, shape, id_dtype, dtype):
    weight = rng.standard_normal((vocabulary, channels))
    ids = rng.integers(0, vocabulary, shape).astype(id_dtype)
    check_twin(gpu, "embedding", [weight, ids], dtype)


@pytest.mark.parametrize("vocabulary", [65, 1025])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_embedding_under_every_schedule(gpu, rng, schedule, vocabulary):
    ids = rng.integers(0, 30, 400)
    check_twin(gpu, "embedding", [rng.standard_normal((vocabulary, 40)), ids], np.float32, schedule)
    assert gpu.counts["embedding_backward"] == (2 if vocabulary > 1024 else 0)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("vocabulary", [9, 1500])
@pytest.mark.parametrize(
    ("shape", "context"), [((3, 50), 64), ((40, 7), 7), ((5,), 9), ((1, 1), 1)]
)
def test_embedding_with_positions(gpu, rng, shape, context, vocabulary, dtype):
    tables = rng.standard_normal((vocabulary, 130)), rng.standard_normal((context, 130))
    ids = rng.integers(0, 9, shape)
    for needs in ((True, True, False), (True, False, False), (False, True, False)):
        check_twin(gpu, "embedding_with_positions", [*tables, ids], dtype, needs=needs)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_embedding_with_positions_is_two_launches(gpu, rng, schedule):
    tables, ids = rng.standard_normal((2, 20, 33)), rng.integers(0, 20, (70, 11))
    check_twin(gpu, "embedding_with_positions", [*tables, ids], np.float32, schedule)
    gpu.counts.clear()
    table, places = (mg.Tensor(a, requires_grad=True, device="gpu") for a in tables)
    F.embedding(table, mg.Tensor(ids, device="gpu"), places).backward(gpu_ones(ids, 33))
    assert gpu.counts["embedding_forward"] == gpu.counts["embedding_backward_rows"] == 1
    assert gpu.counts["launches"] == 2


def gpu_ones(ids, channels):
    return mg.ones((*ids.shape, channels), dtype="float64", device="gpu")


def test_a_place_without_a_position(gpu):
    table = mg.zeros((4, 3), device="gpu")
    for positions, ids in (((2, 3), (2, 3)), ((3,), (1, 2)), ((5, 3), ())):
        with pytest.raises(mg.ShapeError, match="embedding: positions"):
            F.embedding(table, np.zeros(ids, np.int64), mg.zeros(positions, device="gpu"))
    with pytest.raises(mg.ShapeError, match="tables of shapes"):
        F.embedding(table, np.zeros((1, 2), np.int64), mg.zeros((5, 2), device="gpu"))


def test_embedding_of_one_id_and_of_a_large_vocabulary(gpu, rng):
    check_twin(gpu, "embedding", [rng.standard_normal((4, 3)), np.array(2)], np.float64)
    ids = np.array([50256, 0, 50256, 7])
    check_twin(gpu, "embedding", [rng.standard_normal((50257, 64)), ids], np.float32)


def test_an_id_out_of_range_is_nan_and_has_no_gradient(gpu):
    ids = gpu.asarray(np.array([1, 3, -1]))
    y, saved = KERNELS[TEXTBOOK["embedding"]].forward(gpu.asarray(np.ones((3, 2), np.float32)), ids)
    np.testing.assert_array_equal(np.isnan(y.get()), [[False] * 2, [True] * 2, [True] * 2])
    dweight, _ = KERNELS[TEXTBOOK["embedding"]].backward(y, saved, (True, False))
    np.testing.assert_array_equal(dweight.get(), [[0, 0], [1, 1], [0, 0]])


def test_ids_of_another_width_are_refused(gpu):
    with pytest.raises(TypeError, match="int32 and int64, not of int16"):
        KERNELS[TEXTBOOK["embedding"]].forward(gpu.zeros((3, 2)), gpu.zeros(3, np.int16))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("rows", "vocabulary"), [(127, 65), (5, 215), (1, 50257), (2, 1)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(gpu, rng, rows, vocabulary, reduction, dtype):
    logits, targets = rng.standard_normal((rows, vocabulary)) * 4, rng.integers(0, vocabulary, rows)
    targets[1::3] = -100
    targets[0] = vocabulary - 1
    for smoothing in (0.0, 0.1):
        check_twin(
            gpu,
            "cross_entropy",
            [logits, targets.astype(np.int32)],
            dtype,
            reduction=reduction,
            label_smoothing=smoothing,
        )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_cross_entropy_under_every_schedule(gpu, rng, schedule):
    logits, targets = rng.standard_normal((4, 50, 215)), rng.integers(0, 215, (4, 50))
    check_twin(gpu, "cross_entropy", [logits, targets], np.float32, schedule, ignore_index=3)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_cross_entropy_of_logits_far_from_zero(gpu, rng, shift):
    logits, targets = rng.standard_normal((3, 65)) + shift, rng.integers(0, 65, 3)
    # Near 10,000 neighbouring floats differ by 1e-3. The textbook gets the same rounded logits, so
    # only the rounding of ln Σ e^z remains.
    check_twin(gpu, "cross_entropy", [logits, targets], np.float32, tolerance=2e-3)
    check_twin(gpu, "cross_entropy", [logits, targets], np.float64, tolerance=1e-11)


def test_a_target_out_of_range_is_nan(gpu):
    logits, targets = gpu.asarray(np.zeros((2, 3))), gpu.asarray(np.array([3, 1]))
    loss, _ = KERNELS[TEXTBOOK["cross_entropy"]].forward(logits, targets, reduction="none")
    np.testing.assert_allclose(loss.get(), [np.nan, np.log(3)])


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", [(1000,), (3, 127), (1,), (), (0,)])
def test_activations(gpu, rng, shape, dtype):
    x = np.asarray(rng.standard_normal(shape) * 2)
    check_twin(gpu, "relu", [x], dtype)
    for approximate in ("none", "tanh"):
        check_twin(gpu, "gelu", [x], dtype, approximate=approximate)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_nan_passes_through_relu(gpu, dtype):
    """As in the textbook: forward and backward, alone and at the end of a linear layer."""
    x = np.array([[np.nan, -1.0, 2.0], [0.0, np.inf, -np.inf]], dtype)
    dy = np.array([[1.0, np.nan, np.nan], [np.nan, 2.0, 3.0]], dtype)
    w, b = np.eye(3, dtype=dtype), np.array([1.0, np.nan, 0.0], dtype)
    finite = np.where(np.isfinite(x), x, 1)
    cases = [
        ("relu", (x,), {}, (True,)),
        ("linear", (finite, w, b), {"activation": "relu"}, (True,) * 3),
        ("linear", (x, w, None), {"activation": "relu"}, (True, True, False)),
    ]
    for name, arrays, statics, needs in cases:
        with np.errstate(invalid="ignore"):
            wanted, wanted_saved = TEXTBOOK[name].forward(np, *arrays, **statics)
            gradients = TEXTBOOK[name].backward(np, dy, wanted_saved, needs, **statics)
        y, saved = KERNELS[TEXTBOOK[name]].forward(
            *(None if a is None else gpu.asarray(a) for a in arrays), **statics
        )
        np.testing.assert_array_equal(y.get(), wanted)
        assert np.isnan(wanted).any()
        got = KERNELS[TEXTBOOK[name]].backward(gpu.asarray(dy), saved, needs, **statics)
        for ours, theirs in zip(got, gradients, strict=True):
            if theirs is not None:
                np.testing.assert_array_equal(ours.get(), theirs)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_dropout(gpu, rng, dtype):
    x, keep = rng.standard_normal((7, 33)), rng.random((7, 33)) < 0.7
    check_twin(gpu, "dropout", [x, keep], dtype, p=0.3)
    check_twin(gpu, "dropout", [x, keep[0]], dtype, p=0.3)


KNOWN = {  # Philox4x32-10, from the known-answer tests of the Random123 library
    ((0, 0, 0, 0), (0, 0)): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2): (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)): (
        *(0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
}
WORDS = """
__global__ void words(unsigned* out, unsigned a, unsigned b, unsigned c, unsigned d, unsigned k0,
                      unsigned k1) {
  const Counter random = philox({{a, b, c, d}}, k0, k1);
  for (int i = 0; i < 4; i++) out[i] = random.word[i];
}
"""


def test_philox_gives_the_numbers_of_its_authors(libraries):
    kernel = Library(source("dropout") + WORDS, ["words"], libraries.folder).kernels["words"]
    for (counter, key), wanted in KNOWN.items():
        out = np.zeros(4, np.uint32)
        kernel((1,), (32,), (out, *map(np.uint32, (*counter, *key))))
        assert tuple(out) == wanted


def philox(counter, key):
    """Philox in NumPy: counter (4, N), key of two words."""
    c, key = counter.astype(np.uint64), list(key)
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        left, right = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = np.stack(
            [
                (right >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]),
                right & low,
                (left >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]),
                left & low,
            ]
        )
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return c


@pytest.mark.parametrize("shape", [(1,), (129, 9), (0,), (4096,)])
def test_masks_are_a_function_of_seed_step_stream_and_place(gpu, shape):
    size = int(np.prod(shape))
    seed, stream, p = 2**40 + 17, 5, 0.3
    step = gpu.asarray(np.array([9], np.uint32))
    keep = dropout.keep_mask(shape, p, seed=seed, step=step, stream=stream).get()
    groups = np.arange(-(-size // 4))
    counter = np.stack([groups, groups * 0, groups * 0 + 9, groups * 0 + stream])
    words = philox(counter, (seed % 2**32, seed >> 32)).T.reshape(-1)[:size]
    uniform = (words >> np.uint64(8)).astype(np.float64) / 2**24
    np.testing.assert_array_equal(keep, (uniform >= np.float32(p)).reshape(shape))
    if size == 4096:
        assert abs(keep.mean() - 0.7) < 0.03
        other = gpu.asarray(np.array([10], np.uint32))
        assert (dropout.keep_mask(shape, p, seed=seed, step=other, stream=5).get() != keep).any()
    with pytest.raises(OverflowError, match="seed"):
        dropout.keep_mask(shape, p, seed=-1, step=step)
