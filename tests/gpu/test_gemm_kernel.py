"""Matmuls and the linear layer on CUDA, through the CPU shim."""

import numpy as np
import pytest

from minigrad.kernels.cuda import KERNELS, gemm
from minigrad.ops import TEXTBOOK
from minigrad.precision import PRECISIONS as FACTORS
from tests.gpu.sources import source
from tests.gpu.twins import (
    PRECISIONS,
    ROUNDED_TOLERANCE,
    SCHEDULES,
    assert_close,
    check_twin,
    rounded,
    untouched,
)

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
@pytest.mark.parametrize("factors", FACTORS)
def test_products_in_all_orders_of_memory(gpu, rng, shape, dtype, factors, each_library):
    m, n, k = shape
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    bias = rng.standard_normal(n).astype(dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    limit = ROUNDED_TOLERANCE[factors] if dtype == np.float32 else None
    with gemm.precision(factors):
        for transposed_a in (False, True):
            for transposed_b in (False, True):
                left = gpu.asarray(a.T.copy()).T if transposed_a else gpu.asarray(a)
                right = gpu.asarray(b.T.copy()).T if transposed_b else gpu.asarray(b)
                assert_close(gemm.multiply(left, right), exact, "a·b", limit)
        got = gemm.multiply(left, right, gpu.asarray(bias), relu=True)
    assert_close(got, np.maximum(exact + bias, 0), "max(a·b + bias, 0)", limit)


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_products_under_every_schedule(gpu, rng, schedule, factors):
    gpu.engine.schedule = schedule
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((70, 100), (100, 70)))
    with gemm.precision(factors):
        got = gemm.multiply(gpu.asarray(a), gpu.asarray(b))
    assert_close(got, a.astype(np.float64) @ b, "a·b", ROUNDED_TOLERANCE[factors])


def test_where_halves_go():
    halves = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, -(1 + 2.0**-11)])
    even, away = (
        rounded(halves, "tf32", capability) - np.sign(halves) for capability in ("90", "80")
    )
    np.testing.assert_array_equal(even, [0, 2.0**-9, 0])
    np.testing.assert_array_equal(away, [2.0**-10, 2.0**-9, -(2.0**-10)])


@pytest.mark.parametrize("factors", ["tf32", "bf16"])
def test_factors_are_rounded_and_sums_are_not(gpu, rng, factors):
    """The results equal matmuls of rounded operands in double precision, up to float32's errors."""
    a, b = rng.standard_normal((33, 500)), rng.standard_normal((500, 20))
    a[0, :4] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, -(1 + 2.0**-11), 2.0**-130  # ties, and a subnormal
    a[1, :2] = 1 + 2.0**-11, 1 + 3 * 2.0**-11
    with gemm.precision(factors):
        got = gemm.multiply(gpu.asarray(a.astype("f4")), gpu.asarray(b.astype("f4")))
        assert gpu.counts[f"gemm_{factors}"] == 1
        gemm.multiply(gpu.asarray(a), gpu.asarray(b))
        assert gpu.counts["gemm_fma"] == 1  # operands of float64 are never rounded
    capability = gpu.cuda.Device().compute_capability
    assert_close(got, rounded(a, factors, capability) @ rounded(b, factors, capability), "a·b")
    with pytest.raises(AssertionError, match="off by"):
        assert_close(got, a @ b, "a·b")


def test_infinities_and_nan_stay_what_they_are(gpu, each_library):
    a = np.array([[np.inf, 1], [np.nan, 1], [3e38, 1]], np.float32)
    for factors in FACTORS:
        with gemm.precision(factors):
            got = gemm.multiply(gpu.asarray(a), gpu.asarray(np.eye(2, dtype=np.float32)[:, 1:] * 0))
            got = got.get()[:, 0]
        np.testing.assert_array_equal(got, [np.nan, np.nan, 0])


def test_a_long_sum_is_split_and_the_same_every_time(gpu, rng):
    a, b = (rng.standard_normal((2000, n)).astype(np.float32) for n in (20, 30))
    results = []
    for schedule in SCHEDULES:
        gpu.engine.schedule = schedule
        results.append(gemm.multiply(gpu.asarray(a).T, gpu.asarray(b)))
    assert gpu.counts["column_sums"] == len(SCHEDULES)
    assert_close(results[0], a.astype(np.float64).T @ b, "aᵀ·b")
    assert len({r.get().tobytes() for r in results}) == 1


def test_a_strided_operand_is_copied(gpu, rng, each_library):
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
def test_linear(gpu, rng, rows, c_in, c_out, activation, dtype, each_library):
    x, w = rng.standard_normal((rows, c_in)), rng.standard_normal((c_out, c_in))
    b = rng.standard_normal(c_out)
    check_twin(gpu, "linear", [x, w, b], dtype, activation=activation)


def test_linear_without_bias_of_a_vector_and_in_part(gpu, rng, each_library):
    w = rng.standard_normal((5, 7))
    check_twin(gpu, "linear", [rng.standard_normal((2, 3, 7)), w, None], np.float64)
    check_twin(gpu, "linear", [rng.standard_normal(7), w, rng.standard_normal(5)], np.float64)
    for needs in ((True, False, False), (False, True, False), (False, False, True)):
        arrays = [rng.standard_normal((4, 7)), w, rng.standard_normal(5)]
        check_twin(gpu, "linear", arrays, np.float64, needs=needs, activation="relu")


@pytest.mark.parametrize("factors", ["tf32", "bf16"])
def test_linear_in_fewer_bits(gpu, rng, factors, each_library):
    x, w, b = (rng.standard_normal(s) for s in ((127, 64), (215, 64), (215,)))
    with gemm.precision(factors):
        check_twin(gpu, "linear", [x, w, b], np.float32, tolerance=ROUNDED_TOLERANCE[factors])
    ours = gpu.counts[f"gemm_{factors}"], gpu.counts[f"linear_backward_{factors}"]
    assert (*ours, gpu.counts["cublasLtMatmul"]) in ((2, 2, 0), (0, 0, 6))
    assert not gpu.counts["gemm_fma"] + gpu.counts["linear_backward_fma"]


def test_backward_has_the_precision_of_forward(gpu, rng):
    x, w = (gpu.asarray(rng.standard_normal((8, 8)).astype(np.float32)) for _ in range(2))
    with gemm.precision("bf16"):
        y, saved = KERNELS[TEXTBOOK["linear"]].forward(x, w, None)
    KERNELS[TEXTBOOK["linear"]].backward(y, saved, (True, True, False))
    assert gpu.counts["gemm_bf16"] == gpu.counts["linear_backward_bf16"] == 1


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("rows", "c_in", "c_out"), [(700, 65, 70), (600, 3, 1), (33, 64, 130)])
def test_the_backward_pass_in_one_launch(gpu, rng, rows, c_in, c_out, schedule, factors):
    x, w = rng.standard_normal((rows, c_in)), rng.standard_normal((c_out, c_in))
    b = rng.choice([-100.0, 100.0], c_out)  # so that rounding does not decide where y is positive
    with gemm.precision(factors):
        limit = ROUNDED_TOLERANCE[factors]
        check_twin(
            gpu, "linear", [x, w, b], np.float32, schedule, tolerance=limit, activation="relu"
        )
        gpu.counts.clear()
        x, w, b = (gpu.asarray(a.astype(np.float32)) for a in (x, w, b))
        y, saved = KERNELS[TEXTBOOK["linear"]].forward(x, w, b, activation="relu")
        KERNELS[TEXTBOOK["linear"]].backward(y, saved, (True, True, True), activation="relu")
    assert gpu.counts["launches"] == 2


def test_a_backward_pass_that_is_split_is_the_same_every_time(gpu, rng):
    x, w = (gpu.asarray(rng.standard_normal(s).astype(np.float32)) for s in ((999, 20), (30, 20)))
    found = set()
    for schedule in SCHEDULES:
        gpu.engine.schedule = schedule
        y, saved = KERNELS[TEXTBOOK["linear"]].forward(x, w, None)
        gradients = KERNELS[TEXTBOOK["linear"]].backward(y, saved, (True, True, True))
        found.add(b"".join(g.get().tobytes() for g in gradients))
    assert len(found) == 1


def test_no_rows(gpu, each_library):
    x, w, b = np.zeros((0, 5)), np.ones((4, 5)), np.ones(4)
    check_twin(gpu, "linear", [x, w, b], np.float64, activation="relu")


@pytest.mark.parametrize("kernel", ["gemm_fma<float>", "gemm_tf32", "gemm_bf16"])
def test_indices_beyond_two_to_the_31(libraries, kernel):
    """3 rows of 2³⁰ columns, in memory of which hardly anything is touched."""
    columns, shape = 2**30, (3, 2**30)
    a, b, c = (untouched(shape) for _ in range(3))
    a[:, :2] = [[1, 2], [3, 4], [5, 6]]
    b[:2, :64] = np.arange(128).reshape(2, 64) / 64
    numbers = (3, columns, 2, columns, 1, columns, 1, 32, 0)  # m, n, k, strides, part of k, relu
    arguments = (a, b, np.uint64(0), c, *map(np.int32, numbers))
    threads = 256
    libraries[source("gemm")].kernels[kernel]((1, 1), (threads,), arguments)
    np.testing.assert_allclose(c[:, :64], a[:, :2] @ b[:2, :64], rtol=1e-2)
