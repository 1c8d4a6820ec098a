"""Presets: their sizes, flags that override them, and a run with each."""

from types import SimpleNamespace

import pytest

from minigrad import Generator
from tests.tinyalpaca.runs import write_text
from tinyalpaca.cli import example
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.presets import PRESETS
from tinyalpaca.training.metrics_file import read_metrics
from tinyalpaca.training.resuming import find_checkpoint

ORIGINAL = 235_912  # parameters of the original, with the 216 tokens that its tokenizer had
VOCABULARY = {"original": 356, "best": 1536, "small-cpu": 65, "baby-gpt": 65}  # of Tiny Shakespeare


def parameters_of(name):
    settings = {**PRESETS[name].model, "vocab_size": VOCABULARY[name]}
    return TinyAlpaca(ModelConfig(**settings), Generator(0)).num_parameters()


def test_the_default_is_the_originals_setting():
    assert PRESETS["original"].model == PRESETS["original"].training == {}


def test_best_keeps_to_the_originals_budget():
    assert parameters_of("best") == pytest.approx(ORIGINAL, rel=0.05)
    training = TrainConfig(**PRESETS["best"].training)
    assert training.epochs == 10 and training.max_steps == 0


@pytest.mark.parametrize(
    ("name", "millions", "steps", "batch", "length"),
    [("small-cpu", 0.8, 2000, 12, 64), ("baby-gpt", 10.7, 5000, 64, 256)],
)
def test_nanogpts_settings(name, millions, steps, batch, length):
    training = TrainConfig(**PRESETS[name].training)
    assert parameters_of(name) / 1e6 == pytest.approx(millions, abs=0.05)
    assert training.tokenizer == "char" and training.windows == "random"
    assert (training.max_steps, training.batch_size, training.seq_len) == (steps, batch, length + 1)
    per_epoch = 1_003_854 // training.seq_len // training.batch_size + 1  # of Tiny Shakespeare
    assert training.epochs * per_epoch >= steps


@pytest.mark.parametrize("name", PRESETS)
def test_each_runs_and_gives_way_to_flags(tmp_path, name):
    text, out = write_text(tmp_path), tmp_path / "run"
    flags = {"data": text, "out": out, "max-steps": 2, "workers": 1, "batch-size": 2}
    flags |= {"d-model": 24, "d-ff": 32, "num-heads": 2, "num-layers": 2, "max-seq-len": 32}
    flags |= {"seq-len": 33, "eval-stride": 16, "sample-tokens": 3, "epoch-sample-tokens": 0}
    argv = [f"--{key}={value}" for key, value in flags.items()]
    assert example("train", ["--preset", name, "--quiet", *argv]) == 0
    saved = find_checkpoint(out, lambda line: None)
    assert saved.model_config.d_model == 24 and saved.training.batch_size == 2
    for key, value in PRESETS[name].model.items():
        if key.replace("_", "-") not in flags:
            assert getattr(saved.model_config, key) == value
    records = read_metrics(out / "metrics.jsonl")
    assert records[-1]["kind"] == "epoch" and records[-1]["step"] == 2


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], True),
        (["--out", "somewhere", "--workers", "2"], True),
        (["--preset", "original"], False),
        (["--quiet"], False),
        (["--epochs", "3"], False),
        (["--d-model", "32"], False),
        (["--data", "a book"], False),
    ],
)
def test_a_default_run_ends_with_what_another_preset_gives(monkeypatch, capsys, flags, told):
    ended = SimpleNamespace(stopped=None)
    monkeypatch.setattr("tinyalpaca.training.job.run_training", lambda *settings: ended)
    assert example("train", flags) == 0
    last = "--preset best gives 1.44 nats per character from the same size instead of 1.87."
    assert capsys.readouterr().out.rstrip().endswith(last) == told


def test_a_former_name_still_works(monkeypatch, tmp_path):
    """On the command line and in a file."""
    given = []
    monkeypatch.setattr(
        "tinyalpaca.training.job.run_training",
        lambda *settings: given.append(settings) or SimpleNamespace(stopped=None),
    )
    file = tmp_path / "run.toml"
    for name in ("seed", "original"):
        file.write_text(f"preset = '{name}'\n", encoding="utf-8")
        assert example("train", ["--preset", name]) == 0
        assert example("train", ["--config", str(file)]) == 0
    assert len(given) == 4 and all(settings == given[0] for settings in given)
