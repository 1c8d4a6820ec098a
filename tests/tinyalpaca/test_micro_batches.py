"""The size of micro-batches is the same on any machine, with any workers and any load."""

import time

import pytest

from tests.tinyalpaca.runs import assert_same_weights, results, train, write_text
from tinyalpaca.config import ModelConfig
from tinyalpaca.presets import PRESETS
from tinyalpaca.training import calibration, micro_batches
from tinyalpaca.training.micro_batches import layer_operations, micro_batch_size

SEED = ModelConfig(vocab_size=512)
MEDIUM = ModelConfig(vocab_size=65, d_model=128, d_ff=512, max_seq_len=64)
LARGE = ModelConfig(
    vocab_size=65, d_model=384, d_ff=1536, num_heads=6, num_layers=6, max_seq_len=256
)


@pytest.mark.parametrize(
    ("model", "batch_size", "time", "size"),
    [(SEED, 32, 127, 8), (MEDIUM, 12, 64, 6), (LARGE, 16, 256, 2)],
    ids=["seed", "medium", "large"],
)
def test_the_rule_gives_what_was_measured_best(model, batch_size, time, size):
    """The sizes in tests/benchmarks/results, measured on an idle machine."""
    assert micro_batch_size(model, batch_size, time) == size


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8, 30, 32, 100, 4096])
@pytest.mark.parametrize("model", [SEED, MEDIUM, LARGE])
def test_every_batch_is_shared_and_no_part_is_empty(model, batch_size):
    size = micro_batch_size(model, batch_size, 64)
    assert 1 <= size <= max(1, -(-batch_size // 2))


@pytest.mark.parametrize(
    ("model", "batch_size", "time", "size"),
    [
        (SEED, 128, 127, 16),
        (SEED, 8, 511, 2),
        (ModelConfig(vocab_size=8000), 32, 127, 8),
        (ModelConfig(vocab_size=100, d_model=32, d_ff=128, num_layers=2), 64, 64, 32),
        (ModelConfig(vocab_size=512, d_model=256, d_ff=1024), 16, 128, 4),
        (LARGE, 64, 256, 4),
    ],
    ids=["many", "long", "many tokens", "narrow", "wide", "many, large"],
)
def test_the_rule_elsewhere(model, batch_size, time, size):
    """Sizes within 6% of the fastest, by shortest times, measured in turns with one worker."""
    assert micro_batch_size(model, batch_size, time) == size


def test_operations_are_those_of_the_products():
    model = ModelConfig(vocab_size=7, d_model=4, d_ff=6, num_heads=2, num_layers=3, max_seq_len=5)
    products = 5 * 4 * 12 + 5 * 4 * 4 + 2 * 5 * 4 * 6  # qkv, out, both of the feed-forward network
    attention = 2 * 5 * 5 * 4 / 2  # two matmuls, half of which the causal mask saves
    assert layer_operations(model, 5) == 6 * (products + attention)


@pytest.mark.parametrize("preset", PRESETS)
def test_fresh_caches_slow_clocks_and_workers_change_nothing(tmp_path, monkeypatch, preset):
    """Six caches, each with another clock, with 1 to 3 workers, give the same result."""
    text = write_text(tmp_path)
    model = {**PRESETS[preset].model, "d_model": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    model["max_seq_len"] = 16
    settings = {**PRESETS[preset].training, "batch_size": 12, "seq_len": 17, "num_merges": 5}
    settings |= {"micro_batch_size": 0, "epochs": 1, "max_steps": 4, "sample_tokens": 0}
    settings |= {"epoch_sample_tokens": 0, "tokenizer": "bpe", "eval_stride": 0}
    real, runs = time.perf_counter, []
    for number in range(6):
        monkeypatch.setenv("TINYALPACA_CACHE", str(tmp_path / f"cache {number}"))
        calls = iter(range(10**9))
        monkeypatch.setattr(
            calibration.time,
            "perf_counter",
            lambda slow=number, calls=calls: real() * (1 + slow) + next(calls) % (slow + 1) / 50,
        )
        workers = 1 + number % 3
        runs.append(train(tmp_path / f"run {number}", text, model, workers=workers, **settings))
        assert not (tmp_path / f"cache {number}").exists()  # nothing was measured
    for number, run in enumerate(runs):
        assert_same_weights(tmp_path / "run 0", tmp_path / f"run {number}")
        assert results(run) == results(runs[0])
        assert run.config.micro_batch_size == runs[0].task.engine.micro_batch_size


def test_it_is_measured_on_request_and_kept_with_the_run(tmp_path, monkeypatch):
    text = write_text(tmp_path)

    def measured(run, batch_size, workers):
        run(2)  # a measurement does not change numbers
        with open(tmp_path / "asked", "a") as file:  # this runs in another process
            file.write(f"{batch_size} sequences, {workers} worker\n")
        return 3

    monkeypatch.setattr(micro_batches, "choose_micro_batch", measured)
    monkeypatch.setenv("TINYALPACA_CACHE", str(tmp_path / "cache"))
    settings = {"micro_batch_size": 0, "measure_micro_batch": True}
    run = train(tmp_path / "measured", text, **settings)
    again = train(tmp_path / "again", text, **settings)
    given = train(tmp_path / "given", text, micro_batch_size=3)
    assert (tmp_path / "asked").read_text() == "8 sequences, 1 worker\n"  # and remembered
    assert run.config.micro_batch_size == again.config.micro_batch_size == 3
    assert given.config.micro_batch_size == 3
    assert_same_weights(tmp_path / "measured", tmp_path / "given")
