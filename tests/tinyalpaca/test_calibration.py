"""Choosing the size of micro-batches from measured times."""

import json
from math import log2

import pytest

from tinyalpaca.training import calibration
from tinyalpaca.training.calibration import choose_micro_batch, remembered


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the measured work advances."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(calibration, "time", clock)
    return clock


def work(clock, milliseconds_of):
    def run(size):
        clock.now += 1e-3 * milliseconds_of(size)

    return run


def test_a_cost_for_each_call_asks_for_large_sizes_that_all_workers_share(clock):
    run = work(clock, lambda size: 4.0 + size)
    assert choose_micro_batch(run, 32, 1) == 32
    assert choose_micro_batch(run, 32, 2) == 16
    assert choose_micro_batch(run, 32, 4) == 8
    assert choose_micro_batch(run, 30, 4) == 8


def test_a_cache_that_is_left_asks_for_small_sizes(clock):
    run = work(clock, lambda size: 0.4 + size * (1 if size <= 4 else 3))
    assert choose_micro_batch(run, 32, 2) == 4


@pytest.mark.parametrize(("saving", "chosen"), [(0.02, 2), (0.05, 16)])
def test_memory_is_spent_only_on_what_is_worth_it(clock, saving, chosen):
    """From 2 sequences on, each doubling reduces the time per sequence by `saving`."""
    run = work(clock, lambda size: size * ((1 - saving) ** log2(size) if size > 1 else 2))
    assert choose_micro_batch(run, 32, 2) == chosen


def test_long_runs_are_few(clock):
    sizes = []

    def run(size):
        sizes.append(size)
        clock.now += size * (12 if size == 1 else 10)

    assert choose_micro_batch(run, 8, 1) == 2
    assert sizes == [1, 1, 2, 2, 3, 3]  # each once to warm up; none after a size that saves nothing


def test_a_batch_of_one(clock):
    assert choose_micro_batch(work(clock, lambda size: 1.0), 1, 2) == 1


def test_one_slow_round_changes_nothing(clock):
    calls = []

    def run(size):
        calls.append(size)
        clock.now += 1e-3 * (4.0 + size) * (50 if len(calls) % 4 == 2 else 1)

    assert choose_micro_batch(run, 32, 2) == 16


def test_a_measurement_is_made_once(tmp_path):
    path = tmp_path / "deep" / "sizes.json"
    assert remembered(path, "a", lambda: 8) == 8
    assert remembered(path, "a", lambda: pytest.fail("measured again")) == 8
    assert remembered(path, "b", lambda: 4) == 4
    assert json.loads(path.read_text()) == {"a": 8, "b": 4}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": -3}', '{"a": "x"}'])
def test_a_file_that_makes_no_sense_is_measured_anew(tmp_path, content):
    path = tmp_path / "sizes.json"
    path.write_text(content)
    assert remembered(path, "a", lambda: 8) == 8
    assert json.loads(path.read_text())["a"] == 8


def test_a_folder_that_cannot_be_written_is_no_reason_not_to_train(tmp_path):
    (tmp_path / "file").write_text("")
    assert remembered(tmp_path / "file" / "sizes.json", "a", lambda: 8) == 8
