"""Captured functions: the same effect as the function itself, in one launch, or a warning."""

import gc
import warnings
from typing import Any

import numpy as np
import pytest

from minigrad.errors import CaptureWarning
from minigrad.kernels.cuda import scratch
from minigrad.kernels.cuda.columns import column_sums
from minigrad.parallel.capture import Captured


class Counter:
    """Adds `amount`, which lies on the device, to `total`, and returns the square of the total."""

    def __init__(self, gpu: Any) -> None:
        self.gpu, self.calls = gpu, 0
        self.total, self.amount = gpu.zeros(3), gpu.ones(1)

    def __call__(self) -> Any:
        self.calls += 1
        doubled = self.amount * 2  # memory that only the graph uses
        self.total += doubled / 2
        return self.total * self.total


def test_every_call_counts_once(gpu: Any) -> None:
    counter = Counter(gpu)
    captured = Captured(counter, [counter.total], label="count", warm_up=2)
    squares = []
    for i in range(6):
        counter.amount[...] = i + 1
        squares.append(captured().get()[0])
    assert squares == [1, 9, 36, 100, 225, 441]
    assert captured.graph is not None
    assert counter.calls == 4  # two to warm up, one to compare with, one captured
    assert gpu.counts["graph launches"] == 4


def test_a_replay_is_one_launch_and_no_transfer(gpu: Any) -> None:
    counter = Counter(gpu)
    captured = Captured(counter, [counter.total], label="count", warm_up=1)
    for _ in range(2):
        captured()
    gpu.counts.clear()
    captured()
    assert dict(gpu.counts) == {"graph launches": 1}


def test_the_memory_of_a_graph_outlives_the_capture(gpu: Any) -> None:
    counter = Counter(gpu)
    captured = Captured(counter, [counter.total], label="count", warm_up=1)
    first, second = captured().get(), captured()
    gc.collect()
    for _ in range(3):
        gpu.ones(3) * 7  # would reuse that memory if it were free
    third = captured()
    assert third is second and third.get()[0] == 9 and first[0] == 1


def test_switched_off_it_is_the_function(gpu: Any) -> None:
    counter = Counter(gpu)
    captured = Captured(counter, [counter.total], label="count", enabled=False)
    for _ in range(5):
        captured()
    assert counter.calls == 5 and captured.graph is None
    assert gpu.counts["graph launches"] == 0


@pytest.mark.stand_in
@pytest.mark.parametrize(
    "forbidden, why",
    [
        (lambda gpu, x: float(x.sum()), "d2h"),
        (lambda gpu, x: gpu.asarray(np.ones(3)), "h2d"),
        (lambda gpu, x: gpu.matmul(x, x), "cuBLAS"),
    ],
)
def test_what_cannot_be_captured_is_announced_and_runs_eagerly(
    gpu: Any, forbidden: Any, why: str
) -> None:
    total = gpu.zeros(3)

    def function() -> None:
        nonlocal total
        total += 1
        forbidden(gpu, total)

    captured = Captured(function, [total], label="sum", warm_up=1)
    captured()
    with pytest.warns(CaptureWarning, match=rf"the sum runs kernel by kernel.*{why}"):
        captured()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured()
    assert total.get().tolist() == [3, 3, 3]
    assert captured.graph is None and why in str(captured.why_not)
    assert gpu.engine.graph is None and gc.isenabled()


def test_a_value_that_was_baked_in_is_found(gpu: Any) -> None:
    """The function uses a number of Python, so a replay repeats the number of the capture."""
    total, calls = gpu.zeros(3), 0

    def function() -> None:
        nonlocal calls, total
        calls += 1
        total += calls

    captured = Captured(function, [total], label="count", warm_up=1)
    captured()
    with pytest.warns(CaptureWarning, match=r"differed from an eager run in array 0"):
        captured()
    assert total.get().tolist() == [1 + 2] * 3  # the function has run eagerly, once


def test_an_error_of_the_function_is_the_callers(gpu: Any) -> None:
    total, broken = gpu.zeros(3), False

    def function() -> None:
        nonlocal total
        if broken:
            raise ValueError("no such thing")
        total += 1

    captured = Captured(function, [total], label="count", warm_up=1)
    captured()
    broken = True
    with pytest.warns(CaptureWarning), pytest.raises(ValueError, match="no such thing"):
        captured()
    assert total.get().tolist() == [1, 1, 1]


def test_arrays_that_are_not_finite_can_agree(gpu: Any) -> None:
    state = gpu.asarray(np.array([np.nan, np.inf, 1.0]))

    def function() -> None:
        nonlocal state
        state += 1

    captured = Captured(function, [state], label="count", warm_up=1)
    for _ in range(3):
        captured()
    assert captured.graph is not None
    np.testing.assert_array_equal(state.get(), [np.nan, np.inf, 4])


@pytest.mark.stand_in
def test_a_graph_that_is_dropped_gives_its_memory_back(gpu: Any) -> None:
    counter = Counter(gpu)
    captured = Captured(counter, [counter.total], label="count", warm_up=1)
    for _ in range(3):
        result = captured()
    pool = captured._memory.pool
    assert pool.blocks
    del result, captured
    assert pool.blocks == []


@pytest.mark.stand_in
@pytest.mark.parametrize("fault", ["an error", "a value that is baked in"])
def test_a_capture_that_fails_leaves_no_memory_behind(gpu: Any, fault: str) -> None:
    total, calls = gpu.zeros(3), 0

    def function() -> Any:
        nonlocal calls, total
        calls += 1
        total += gpu.ones(3) * (calls if fault != "an error" else 1)
        if fault == "an error":
            float(total.sum())
        return total + 1, total + 2

    captured = Captured(function, [total], label="count", warm_up=1)
    captured()
    with pytest.warns(CaptureWarning):
        first, second = captured()
    gc.collect()
    assert gpu.counts["leaked blocks"] == 0 and captured._memory.pool is None
    wanted = 2 if fault == "an error" else 3
    assert [a.get().tolist() for a in (total, first, second)] == [
        [wanted + i] * 3 for i in range(3)
    ]


@pytest.mark.stand_in
def test_scratch_is_not_memory_of_a_graph(gpu: Any) -> None:
    """Otherwise it would hold blocks of the graph's pool. It is freed with the stream."""
    x = gpu.ones((300, 5))

    def function() -> Any:
        return column_sums(x)

    captured = Captured(function, [], label="sum", warm_up=1)
    for _ in range(3):
        result = captured()
    assert result.get().tolist() == [300] * 5 and captured.graph is not None
    assert len(scratch._kept) == 2  # for the current stream, and for the captured one
    pool = captured._memory.pool
    del result, captured, function
    assert pool.blocks == [] and len(scratch._kept) == 1


@pytest.mark.stand_in
def test_free_memory_of_the_default_pool_is_given_back_before_a_capture(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a large model needs its activations twice: in that pool and in the graph's."""
    events: list[str] = []
    pool = gpu.get_default_memory_pool()
    monkeypatch.setattr(pool, "free_all_blocks", lambda: events.append("freed"))
    counter = Counter(gpu)
    captured = Captured(
        lambda: [events.append("called"), counter()][1], [counter.total], label="", warm_up=1
    )
    for _ in range(3):
        captured()
    assert events == ["called", "freed", "called", "called"]


@pytest.mark.stand_in
def test_a_stream_is_waited_for_before_its_work_is_undone(gpu: Any) -> None:
    total, calls = gpu.zeros(3), 0

    def function() -> None:
        nonlocal calls, total
        calls += 1
        total += 1
        if calls == 2:  # in the eager run with which the replay is compared
            raise ValueError("half-way")

    captured = Captured(function, [total], label="sum", warm_up=1)
    captured()
    with pytest.warns(CaptureWarning, match="half-way"):
        captured()
    assert total.get().tolist() == [2, 2, 2]
