"""A user's mistakes: each gives one clear sentence on standard error, before any work is done."""

import importlib.util
import json
import shutil

import pytest

from tests.tinyalpaca.test_main_job import SMALL, TEXT
from tinyalpaca.cli import example
from tinyalpaca.commands.train_command import without_effect
from tinyalpaca.config import TrainConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a short run; tests copy it before they damage it."""
    folder = tmp_path_factory.mktemp("trained")
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    out = folder / "run"
    assert (
        example("train", ["--data", str(text), "--out", str(out), *SMALL, "--max-steps", "1"]) == 0
    )
    return out


@pytest.fixture
def damaged(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def error_of(capsys, command, argv):
    capsys.readouterr()
    assert example(command, argv) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


def train_on(tmp_path, content, *more):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    return ["--data", str(path), "--out", str(tmp_path / "out"), *SMALL, *more]


@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b"x", "one character")])
def test_a_text_with_nothing_to_learn(tmp_path, capsys, content, message):
    assert message in error_of(capsys, "train", train_on(tmp_path, content))


def test_a_text_that_is_not_utf8_names_the_byte(tmp_path, capsys):
    error = error_of(capsys, "train", train_on(tmp_path, TEXT.encode() + b"\xff\xfe"))
    assert "UTF-8" in error
    assert f"{len(TEXT.encode())}" in error.replace(",", "")


def test_a_missing_text(tmp_path, capsys):
    argv = ["--data", str(tmp_path / "nowhere.txt"), "--out", str(tmp_path / "out"), *SMALL]
    assert "nowhere.txt" in error_of(capsys, "train", argv)


def test_a_sequence_longer_than_the_data(tmp_path, capsys):
    argv = train_on(tmp_path, b"To be, or not to be.", "--seq-len", "500", "--max-seq-len", "500")
    error = error_of(capsys, "train", argv)
    assert "500" in error
    assert "longer" in error


def test_a_sequence_longer_than_the_model(tmp_path, capsys):
    argv = train_on(tmp_path, TEXT.encode(), "--seq-len", "40")
    assert "max_seq_len (16)" in error_of(capsys, "train", argv)


def test_heads_that_do_not_divide_the_width(tmp_path, capsys):
    argv = train_on(tmp_path, TEXT.encode(), "--d-model", "15")
    error = error_of(capsys, "train", argv)
    assert "d_model (15) must be divisible by num_heads (2)" in error


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--learning-rate", "0", "learning_rate must be positive"),
        ("--batch-size", "0", "batch_size must be at least 1"),
        ("--validation-fraction", "1.5", "validation_fraction must be between 0 and 1"),
        ("--dropout", "1", "dropout must be in [0, 1)"),
        ("--cooldown", "0", "cooldown must be in (0, 1]"),
        ("--eval-stride", "9999", "can move on by"),
    ],
)
def test_settings_out_of_range(tmp_path, capsys, flag, value, message):
    argv = train_on(tmp_path, TEXT.encode(), flag, value)
    assert message in error_of(capsys, "train", argv)


def test_restarts_have_no_warm_up(tmp_path, capsys):
    """Otherwise the warm-up would be ignored silently, also one from a preset."""
    for more in (["--warmup-steps", "3"], ["--preset", "best"]):
        argv = train_on(tmp_path, TEXT.encode(), "--schedule", "cosine-restarts", *more)
        assert "cosine-restarts has no warm-up, and warmup_steps is" in error_of(
            capsys, "train", argv
        )
        assert not (tmp_path / "run").exists()


def test_the_settings_of_a_run_are_no_choice_to_warn_of(trained, tmp_path, capsys):
    """Its file gives every setting, most of them as they are by default."""
    argv = ["--config", str(trained / "config.json"), "--out", str(tmp_path / "run")]
    assert example("train", [*argv, "--quiet"]) == 0
    assert "has no effect" not in capsys.readouterr().err


def test_flags_that_nothing_looks_at_are_told():
    flags = ["min_learning_rate", "cooldown", "muon_learning_rate", "num_merges"]
    flags += ["validation_fraction", "measure_micro_batch"]
    idle = TrainConfig(tokenizer="char", validation="b.txt", micro_batch_size=3)
    told = without_effect(flags, idle)
    assert [line.split(" has no effect")[0] for line in told] == [
        "--" + name.replace("_", "-") for name in flags
    ]
    assert without_effect([], idle) == []
    assert without_effect(flags, TrainConfig(schedule="linear", optimizer="muon")) == []


def test_an_output_folder_that_is_a_file_is_found_before_training(tmp_path, capsys):
    (tmp_path / "out").write_text("I am a file")
    error = error_of(capsys, "train", train_on(tmp_path, TEXT.encode()))
    assert str(tmp_path / "out") in error
    assert (tmp_path / "out").read_text() == "I am a file"


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
@pytest.mark.parametrize("command", ["train", "generate"])
def test_a_gpu_without_cupy_says_what_to_install(tmp_path, capsys, trained, command):
    argv = ["--checkpoint", str(trained)] if command == "generate" else ["--out", str(tmp_path)]
    error = error_of(capsys, command, [*argv, "--device", "gpu"])
    assert 'pip install -e ".[cuda13]"' in error


def test_generating_without_a_model_says_how_to_make_one(tmp_path, capsys):
    error = error_of(capsys, "generate", ["--checkpoint", str(tmp_path / "none")])
    assert "examples/train_shakespeare.py" in error


def test_truncated_weights(damaged, capsys):
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    error = error_of(capsys, "generate", ["--checkpoint", str(damaged)])
    assert "model.safetensors" in error


def test_weights_of_another_configuration(damaged, capsys):
    config = json.loads((damaged / "config.json").read_text(encoding="utf-8"))
    config["model"]["d_ff"] = 48
    config["model"]["num_layers"] = 3
    (damaged / "config.json").write_text(json.dumps(config), encoding="utf-8")
    error = error_of(capsys, "generate", ["--checkpoint", str(damaged)])
    assert "another configuration" in error
    assert "wrong shape: decoder_layers.0.ffn.fc1.weight" in error
    assert "missing: decoder_layers.2.ffn.fc1.weight" in error


def test_a_configuration_that_is_not_one(damaged, capsys):
    (damaged / "config.json").write_text("[1, 2]", encoding="utf-8")
    assert "config.json" in error_of(capsys, "generate", ["--checkpoint", str(damaged)])
