"""Matrix products and the linear layer on CUDA, through the CPU shim."""

import numpy as np
import pytest

from minigrad.kernels.cuda import gemm
from tests.gpu.twins import PRECISIONS, SCHEDULES, TF32_TOLERANCE, assert_close, check_twin

SHAPES = [
    (1, 1, 1),
    (64, 64, 32),
    (65, 63, 33),
    (127, 96, 64),
    (5, 130, 17),
    (200, 3, 1),
    (3, 4, 0),
]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tf32", [False, True])
def test_products_in_all_orders_of_memory(gpu, rng, shape, dtype, tf32):
    m, n, k = shape
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    bias = rng.standard_normal(n).astype(dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    limit = TF32_TOLERANCE if tf32 and dtype == np.float32 else None
    with gemm.tf32(tf32):
        for transposed_a in (False, True):
            for transposed_b in (False, True):
                left = gpu.asarray(a.T.copy()).T if transposed_a else gpu.asarray(a)
                right = gpu.asarray(b.T.copy()).T if transposed_b else gpu.asarray(b)
                assert_close(gemm.multiply(left, right), exact, "a·b", limit)
        got = gemm.multiply(left, right, gpu.asarray(bias), relu=True)
    assert_close(got, np.maximum(exact + bias, 0), "max(a·b + bias, 0)", limit)


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_products_under_every_schedule(gpu, rng, schedule, tf32):
    gpu.engine.schedule = schedule
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((70, 100), (100, 70)))
    with gemm.tf32(tf32):
        got = gemm.multiply(gpu.asarray(a), gpu.asarray(b))
    assert_close(got, a.astype(np.float64) @ b, "a·b", TF32_TOLERANCE if tf32 else None)


def test_tf32_is_used_where_it_is_allowed_and_only_there(gpu, rng):
    a = rng.standard_normal((16, 64)).astype(np.float32)
    exact = a.astype(np.float64) @ a.T
    with gemm.tf32():
        rounded = gemm.multiply(gpu.asarray(a), gpu.asarray(a).T).get()
        assert gpu.counts["gemm_tf32"] == 1
        gemm.multiply(gpu.asarray(exact), gpu.asarray(exact))
    full = gemm.multiply(gpu.asarray(a), gpu.asarray(a).T).get()
    assert gpu.counts["gemm_tf32"] == 1 and gpu.counts["gemm_fma"] == 2
    assert np.abs(rounded - exact).max() > 20 * np.abs(full - exact).max()


def test_a_long_sum_is_split_and_the_same_every_time(gpu, rng):
    a, b = (rng.standard_normal((2000, n)).astype(np.float32) for n in (20, 30))
    results = []
    for schedule in SCHEDULES:
        gpu.engine.schedule = schedule
        results.append(gemm.multiply(gpu.asarray(a).T, gpu.asarray(b)))
    assert gpu.counts["column_sums"] == len(SCHEDULES)
    assert_close(results[0], a.astype(np.float64).T @ b, "aᵀ·b")
    assert len({r.get().tobytes() for r in results}) == 1


def test_a_strided_operand_is_copied(gpu, rng):
    a = rng.standard_normal((10, 12))
    got = gemm.multiply(gpu.asarray(a)[:, ::2], gpu.asarray(a)[:6])
    assert_close(got, a[:, ::2] @ a[:6], "a·b")


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ((2, 3), (2, 3), "no matrix product"),
        ((3,), (3, 2), "no matrix product"),
    ],
)
def test_shapes_that_do_not_fit(gpu, left, right, message):
    with pytest.raises(ValueError, match=message):
        gemm.multiply(gpu.zeros(left), gpu.zeros(right))


def test_one_dtype_that_kernels_know(gpu):
    with pytest.raises(TypeError, match="one dtype, not float32 and float64"):
        gemm.multiply(gpu.zeros((2, 2)), gpu.zeros((2, 2), np.float32))
    with pytest.raises(TypeError, match="not in float16"):
        gemm.multiply(gpu.zeros((2, 2), np.float16), gpu.zeros((2, 2), np.float16))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("rows", "c_in", "c_out"), [(127, 64, 192), (129, 96, 65), (2, 384, 96)])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_linear(gpu, rng, rows, c_in, c_out, activation, dtype):
    x, w = rng.standard_normal((rows, c_in)), rng.standard_normal((c_out, c_in))
    b = rng.standard_normal(c_out)
    check_twin(gpu, "linear", [x, w, b], dtype, activation=activation)


def test_linear_without_bias_of_a_vector_and_in_part(gpu, rng):
    w = rng.standard_normal((5, 7))
    check_twin(gpu, "linear", [rng.standard_normal((2, 3, 7)), w, None], np.float64)
    check_twin(gpu, "linear", [rng.standard_normal(7), w, rng.standard_normal(5)], np.float64)
    for needs in ((True, False, False), (False, True, False), (False, False, True)):
        arrays = [rng.standard_normal((4, 7)), w, rng.standard_normal(5)]
        check_twin(gpu, "linear", arrays, np.float64, needs=needs, activation="relu")


def test_linear_in_tf32(gpu, rng):
    x, w, b = (rng.standard_normal(s) for s in ((127, 64), (215, 64), (215,)))
    with gemm.tf32():
        check_twin(gpu, "linear", [x, w, b], np.float32, tolerance=TF32_TOLERANCE)
