"""The CPU shim finds the faults of kernels that are broken on purpose."""

import numpy as np
import pytest

from tests.gpu.shim.build import LaunchError, Library, kernel_names
from tests.gpu.sources import SOURCES, source
from tests.gpu.twins import SCHEDULES

BROKEN = """
struct Numbers { float x[128]; };

__global__ void reverse_without_barrier(float* x) {
  Numbers& s = block_shared<Numbers>();
  s.x[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = s.x[blockDim.x - 1 - threadIdx.x];
}
__global__ void reverse(float* x) {
  Numbers& s = block_shared<Numbers>();
  s.x[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s.x[blockDim.x - 1 - threadIdx.x];
}
__global__ void reads_ahead(float* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n - 1) x[i] = x[i + 1];
}
__global__ void reads_unwritten(float* x) {
  Numbers& s = block_shared<Numbers>();
  if (threadIdx.x != 5) s.x[threadIdx.x] = 1;
  __syncthreads();
  x[threadIdx.x] = s.x[threadIdx.x];
}
__global__ void half_at_barrier(float* x) {
  if (threadIdx.x < 16) __syncthreads();
}
__global__ void two_barriers(float* x) {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void half_a_shuffle(float* x) {
  if (threadIdx.x < 16) x[0] = warp_sum(1.0f);
}
__global__ void two_collectives(float* x) {
  if (threadIdx.x < 16)
    x[0] = warp_sum(1.0f);
  else
    __ballot_sync(ALL_LANES, 1);
}
__global__ void half_a_mask(float* x) {
  x[0] = __shfl_sync(0xffffu, x[0], 0);
}
__global__ void shuffle_and_barrier(float* x) {
  if (threadIdx.x < 16)
    x[0] = warp_sum(1.0f);
  else
    __syncthreads();
}
__global__ void too_much_memory(float* x) {
  struct Large { float x[12289]; };
  x[0] = block_shared<Large>().x[0];
}
__global__ void counts(int* count) { atomicAdd(count, 1); }
"""


@pytest.fixture(scope="module")
def broken(libraries):
    code = source("column_sums") + BROKEN
    return Library(code, kernel_names(BROKEN), libraries.folder).kernels


def test_a_missing_barrier_is_found(broken):
    """With every order some thread reads before another one has written."""
    wanted = np.arange(128, dtype=np.float32)[::-1]
    right = []
    for schedule in SCHEDULES:
        x = np.arange(128, dtype=np.float32)
        broken["reverse"]((1,), (128,), (x,), schedule)
        np.testing.assert_array_equal(x, wanted)
        x = np.arange(128, dtype=np.float32)
        broken["reverse_without_barrier"]((1,), (128,), (x,), schedule)
        right.append(np.array_equal(x, wanted))
    assert not any(right)


def test_a_race_in_global_memory_shows_as_results_that_differ(broken):
    results = []
    for schedule in SCHEDULES:
        x = np.arange(300, dtype=np.float32)
        broken["reads_ahead"]((3,), (128,), (x, np.int32(300)), schedule)
        results.append(x.tobytes())
    assert len(set(results)) > 1


def test_shared_memory_that_nobody_wrote_is_nan(broken):
    x = np.zeros(64, np.float32)
    broken["reads_unwritten"]((1,), (64,), (x,))
    assert np.flatnonzero(np.isnan(x)).tolist() == [5]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half_at_barrier", "waits at __syncthreads.. for threads that have ended"),
        ("two_barriers", "another __syncthreads"),
        ("half_a_shuffle", "ended"),
        ("two_collectives", "in different collectives"),
        ("half_a_mask", "must name all lanes"),
        ("shuffle_and_barrier", "deadlock: it waits in a warp collective"),
        ("too_much_memory", "more than 48 KB"),
    ],
)
def test_faults_of_a_kernel_are_named(broken, name, message, schedule):
    with pytest.raises(LaunchError, match=rf"{name}, block \(0, 0, 0\), thread \d+: .*{message}"):
        broken[name]((1,), (32,), (np.zeros(32, np.float32),), schedule)


def test_atomics_and_grids(broken):
    count = np.zeros(1, np.int32)
    broken["counts"]((2, 3, 4), (8, 4, 2), (count,))
    assert count[0] == 24 * 64


@pytest.mark.parametrize(
    ("grid", "block"), [((0,), (32,)), ((1,), (33,)), ((1,), (2048,)), ((1, 65536), (32,))]
)
def test_launches_that_a_gpu_refuses(broken, grid, block):
    with pytest.raises(LaunchError, match="counts: a grid of"):
        broken["counts"](grid, block, (np.zeros(1, np.int32),))


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        (np.zeros(1, np.int64), "i8"),
        (np.zeros((4, 4), np.int32)[:, 0], "int32|ndarray"),
        (np.int32(1), "i4"),
        (1, "int"),
    ],
)
def test_arguments_of_another_type_are_refused(broken, argument, given):
    with pytest.raises(LaunchError, match=rf"argument 0 is \W*({given})"):
        broken["counts"]((1,), (32,), (argument,))
    with pytest.raises(LaunchError, match="takes 1 arguments, not 2"):
        broken["counts"]((1,), (32,), (argument, argument))


def test_every_kernel_of_every_source_has_a_launcher():
    for kernels in SOURCES:
        names = {e.partition("<")[0] for e in kernels.expressions()}
        assert names == set(kernel_names(kernels.text())), kernels.file
