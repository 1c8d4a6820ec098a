"""Several runs, for which the text is read once."""

import csv

import pytest

from tests.tinyalpaca.runs import MODEL, TRAINING, assert_same_weights, train, write_text
from tinyalpaca.cli import main
from tinyalpaca.commands.sweep_command import parsed
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.training import sweep as sweep_module
from tinyalpaca.training.sweep import sweep


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


def test_every_combination_and_the_best_first(tmp_path, text, monkeypatch):
    readings, read = [], sweep_module.read_tokens
    monkeypatch.setattr(
        sweep_module, "read_tokens", lambda *args: readings.append(1) or read(*args)
    )
    out = tmp_path / "sweep"
    config = TrainConfig(**{**TRAINING, "data": str(text), "out": str(out), "epochs": 1})
    vary = {"learning_rate": [1e-4, 1e-2], "d_ff": [16, 24]}
    rows = sweep(config, vary, ModelConfig(**MODEL))
    assert len(readings) == 1
    assert [row["nats_per_char"] for row in rows] == sorted(r["nats_per_char"] for r in rows)
    assert {(r["learning_rate"], r["d_ff"]) for r in rows} == {
        (rate, width) for rate in vary["learning_rate"] for width in vary["d_ff"]
    }
    assert rows[0]["learning_rate"] == 1e-2 and rows[0]["ended"] == "at its end"
    train(tmp_path / "alone", text, {"d_ff": 24}, epochs=1, learning_rate=1e-4)
    assert_same_weights(out / "learning_rate=0.0001,d_ff=24", tmp_path / "alone")
    assert sweep(config, vary, ModelConfig(**MODEL)) == rows  # all runs are complete
    with open(out / "sweep.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_run_that_comes_to_nothing_is_told_and_the_others_go_on(tmp_path, text, capsys):
    flags = ["--data", str(text), "--out", str(tmp_path / "sweep"), "--epochs", "1"]
    flags += ["--batch-size", "8", "--seq-len", "17", "--num-merges", "5", "--workers", "1"]
    flags += ["--max-seq-len", "16", "--d-model", "8", "--d-ff", "16", "--num-heads", "2"]
    flags += ["--num-layers", "1", "--no-preflight", "--sample-tokens", "0", "--grad-clip", "0"]
    flags += ["--epoch-sample-tokens", "0", "--vary", "learning-rate=1e30,1e-2"]
    assert main(["sweep", *flags]) == 1
    table = capsys.readouterr().out.split("\n")
    first = next(n for n, line in enumerate(table) if line.startswith("learning_rate"))
    assert table[first].split() == ["learning_rate", "nats_per_char", "step", "folder", "ended"]
    assert table[first + 1].startswith("0.01") and table[first + 1].endswith("at its end")
    assert table[first + 2].startswith("1e+30") and "loss" in table[first + 2]


@pytest.mark.parametrize(
    "wrong", ["learning_rate", "wheels=1,2", "epochs=two", "bias=maybe", "out=a,b"]
)
def test_what_cannot_be_varied(wrong):
    with pytest.raises(ConfigError, match="--vary"):
        parsed(wrong)


def test_values_have_the_type_of_the_setting():
    assert parsed("learning-rate=1,2e-3") == ("learning_rate", [1.0, 2e-3])
    assert parsed("windows=random, consecutive") == ("windows", ["random", "consecutive"])
    assert parsed("bias=true,False") == ("bias", [True, False])
    with pytest.raises(ConfigError, match="no setting wheels"):
        sweep(TrainConfig(), {"wheels": [1]})
