"""The main job as a user runs it: trains on a text, checks the written files, generates."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad.storage import load_safetensors
from tinyalpaca.cli import example, main
from tinyalpaca.data import SEPARATOR, TokenFile
from tinyalpaca.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[2]
TEXT = (
    "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer\n" * 40
)
SMALL = [
    "--num-merges",
    "10",
    "--epochs",
    "2",
    "--batch-size",
    "8",
    "--seq-len",
    "17",
    "--d-model",
    "16",
    "--d-ff",
    "32",
    "--num-heads",
    "2",
    "--num-layers",
    "2",
    "--max-seq-len",
    "16",
    "--workers",
    "1",
    "--micro-batch-size",
    "4",
    "--sample-tokens",
    "8",
]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "hamlet.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def train(text_file, out, *more):
    return example("train", ["--data", str(text_file), "--out", str(out), *SMALL, *more])


def records(folder, kind="epoch"):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    every = [json.loads(line) for line in lines]
    return [r for r in every if "val_loss" in r] if kind == "epoch" else every


def test_a_run_writes_everything_and_says_so(text_file, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(text_file, out) == 0
    printed = capsys.readouterr().out
    line = r"Epoch \[1/2\] \| Train Loss: \d\.\d{4} \| Val Loss: \d\.\d{4} \| LR: 3\.00e-04"
    assert re.search(line, printed)
    assert str(text_file) in printed
    assert "nats/char" in printed
    assert "To be or not to be, that is the question:" in printed

    for name in ("model.safetensors", "config.json", "tokenizer.json", "metrics.jsonl"):
        assert (out / name).stat().st_size > 0, name
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["model"]["d_model"] == 16
    assert config["model"]["vocab_size"] == 266
    weights, _ = load_safetensors(out / "model.safetensors")
    assert weights["decoder_layers.1.ffn.fc1.weight"].shape == (32, 16)

    first, second = records(out)
    wanted = {"epoch", "step", "train_loss", "val_loss", "val_nats_per_char", "learning_rate"}
    wanted |= {"grad_norm", "tokens_per_second", "seconds"}
    assert wanted <= first.keys()
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert second["step"] == 2 * first["step"]
    assert second["train_loss"] < first["train_loss"] < math.log(266) * 1.05


def test_the_loss_curve_is_a_picture(text_file, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the loss curve is drawn with matplotlib")
    monkeypatch.setattr("tinyalpaca.training.hooks.curve.plots_available", lambda: True)
    train(text_file, tmp_path / "run")
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG\r\n")


def losses_of(folder):
    return [(r["train_loss"], r["val_loss"]) for r in records(folder)]


def weights_of(folder):
    return load_safetensors(folder / "model.safetensors")[0]


def test_the_same_seed_gives_the_same_run_bit_for_bit(text_file, tmp_path):
    runs = {
        "first": [],
        "again": [],
        "two workers": ["--workers", "2"],
        "other seed": ["--seed", "1"],
    }
    for name, more in runs.items():
        assert train(text_file, tmp_path / name, "--dropout", "0.1", "--epochs", "1", *more) == 0
    for name in ("again", "two workers"):
        assert losses_of(tmp_path / name) == losses_of(tmp_path / "first")
        for key, value in weights_of(tmp_path / "first").items():
            np.testing.assert_array_equal(weights_of(tmp_path / name)[key], value)
    assert losses_of(tmp_path / "other seed") != losses_of(tmp_path / "first")


def test_max_steps_ends_a_run_early(text_file, tmp_path):
    train(text_file, tmp_path / "run", "--max-steps", "3")
    assert records(tmp_path / "run")[-1]["step"] == 3


def test_generate_goes_on_from_what_training_wrote(text_file, tmp_path, capsys):
    train(text_file, tmp_path / "run")
    capsys.readouterr()
    long_prompt = "Whether 'tis nobler in the mind to suffer " * 3
    argv = ["--checkpoint", str(tmp_path / "run"), "--prompt", long_prompt]
    argv += ["--max-new-tokens", "30"]
    texts = []
    for more in (["--seed", "1"], ["--seed", "1"], ["--seed", "2"], ["--temperature", "0"]):
        assert example("generate", [*argv, *more]) == 0
        texts.append(capsys.readouterr().out)
    assert all(text.startswith(long_prompt) and len(text) > len(long_prompt) for text in texts)
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert example("generate", [*argv, "--temperature", "0", "--seed", "9"]) == 0
    assert capsys.readouterr().out == texts[3]


def test_the_examples_run_as_scripts(text_file, tmp_path):
    def run(script, *argv):
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / script), *argv],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    out = str(tmp_path / "run")
    run("train_shakespeare.py", "--data", str(text_file), "--out", out, *SMALL, "--max-steps", "2")
    assert "To be" in run("generate.py", "--checkpoint", out, "--max-new-tokens", "5")


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["generate", "--help"]])
def test_help_is_worth_reading(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    if argv[0] == "train":
        for flag in ("--d-model", "--learning-rate", "--no-pre-norm", "--device", "--max-steps"):
            assert flag in text
        assert "(default: 0.0003)" in text


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tinyalpaca {minigrad.__version__}\n"


def test_a_folder_of_texts_and_a_text_for_validation(tmp_path, capsys):
    (tmp_path / "plays").mkdir()
    for name in ("one", "two"):
        (tmp_path / "plays" / f"{name}.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "held_out.txt").write_text(TEXT[:500], encoding="utf-8")
    out = tmp_path / "run"
    argv = ["--data", str(tmp_path / "plays"), "--validation", str(tmp_path / "held_out.txt")]
    assert example("train", [*argv, "--out", str(out), *SMALL, "--max-steps", "2"]) == 0
    assert "held_out.txt (500 characters)" in capsys.readouterr().out
    tokenizer = load_tokenizer(out / "tokenizer.json")
    training = TokenFile.open(out / "tokens" / "training.tokens", tokenizer).tokens
    separator = tokenizer.special_tokens[SEPARATOR]
    assert (training == separator).sum() == 1  # between the two texts
    assert tokenizer.decode(training[training != separator]) == 2 * TEXT
