"""Captured functions: the same effect as the function itself, in one launch, or an announcement."""

import gc
import warnings
from typing import Any

import numpy as np
import pytest

from minigrad.errors import CaptureWarning
from minigrad.parallel.capture import Captured


class Counter:
    """Adds `amount`, which lies on the device, to `total`, and gives the square of the total."""

    def __init__(self, gpu: Any) -> None:
        self.gpu, self.calls = gpu, 0
        self.total, self.amount = gpu.zeros(3), gpu.ones(1)

    def __call__(self) -> Any:
        self.calls += 1
        doubled = self.amount * 2  # memory that only the graph has
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
        gpu.ones(3) * 7  # would take memory that were free
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
    """The number of calls is Python's, so that a replay repeats the captured one."""
    total, calls = gpu.zeros(3), 0

    def function() -> None:
        nonlocal calls, total
        calls += 1
        total += calls

    captured = Captured(function, [total], label="count", warm_up=1)
    captured()
    with pytest.warns(CaptureWarning, match=r"differed from an eager run in array 0"):
        captured()
    assert total.get().tolist() == [1 + 2] * 3  # the eager run's effect, once


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
