"""Large kernels on several threads are bitwise identical to one thread."""

import threading

import numpy as np
import pytest

from minigrad import blas
from minigrad.blas import OneBlasThread, sharing
from minigrad.kernels.cpu import activations, attention, threads
from minigrad.kernels.cpu.threads import shared
from minigrad.state import STATE, setting

RNG = np.random.default_rng(0)


@pytest.fixture
def started(monkeypatch):
    """The threads that are started."""
    found = []
    real = threading.Thread

    def start(*args, **kwargs):
        found.append(real(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(threads.threading, "Thread", start)
    return found


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "kernel",
    [
        lambda x: activations.gelu.infer(x, approximate="tanh"),
        lambda x: activations.gelu.forward(x, approximate="none"),
        activations.silu.infer,
        activations.swiglu.infer,
        lambda x: attention.multi_head_attention.infer(x, num_heads=2, causal=True),
        lambda x: attention.multi_head_attention.forward(x, num_heads=2, causal=True),
    ],
    ids=["gelu_tanh", "gelu", "silu", "swiglu", "attention", "attention, kept"],
)
@pytest.mark.parametrize("scale", [1, 300])  # with 300, scores are beyond the range of exp
def test_any_number_of_threads_gives_the_same(kernel, dtype, count, scale, started, monkeypatch):
    monkeypatch.setattr(threads, "LEAST", 1)
    monkeypatch.setattr(activations, "SLICE", 4096)
    x = (scale * RNG.standard_normal((1, 131, 2 * 3 * 24))).astype(dtype)
    x = x.transpose(0, 2, 1).copy().transpose(0, 2, 1)
    with OneBlasThread():  # the number of BLAS threads changes the last bits of matmuls
        expected = kernel(x)
        with setting(threads=count), np.errstate(all="raise", under="ignore", over="ignore"):
            found = kernel(x)
    assert started and len(started) % (count - 1) == 0
    assert not any(thread.is_alive() for thread in started)
    for ours, theirs in zip(flat(found), flat(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def flat(result):
    return (
        [a for part in result for a in flat(part)] if isinstance(result, tuple | list) else [result]
    )


def test_each_piece_is_computed_once():
    seen = []
    with setting(threads=3):
        shared(10, threads.LEAST, lambda some: seen.extend(range(10)[some]))
    assert sorted(seen) == list(range(10))


def test_little_work_and_a_single_piece_start_no_thread(started):
    with setting(threads=4):
        shared(10, threads.LEAST - 1, lambda some: None)
        shared(1, threads.LEAST, lambda some: None)
    shared(10, threads.LEAST, lambda some: None)  # no caller has said that cores are idle
    assert not started


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_any_thread_is_raised_when_all_have_ended(failing):
    ended = []

    def work(some):
        if some.start == failing:
            raise ZeroDivisionError
        ended.append(some.start)

    with setting(threads=2), pytest.raises(ZeroDivisionError):
        shared(2, threads.LEAST, work)
    assert ended == [1 - failing] and blas._users == 0


def test_as_many_threads_as_blas_has():
    with sharing():
        assert STATE.threads == blas.blas_threads() >= 1
    with OneBlasThread(), sharing():  # training, or a small model
        assert STATE.threads == 1
    assert STATE.threads == 1
