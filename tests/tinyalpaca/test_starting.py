"""How a run begins: from a file of settings, from existing weights, with frozen parameters."""

import json
import re

import numpy as np
import pytest

from minigrad import Generator
from minigrad.storage import load_safetensors
from tests.tinyalpaca.runs import (
    MODEL,
    assert_same_weights,
    final_weights,
    resume,
    train,
    write_text,
)
from tinyalpaca.chat import ChatTemplate
from tinyalpaca.cli import example
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs import RunFolder, load_model, save_model
from tinyalpaca.settings import groups_of, read_settings


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


def read(path):
    return read_settings(path, model=ModelConfig, training=TrainConfig)


# Files of settings


def test_a_file_of_settings_and_flags_beside_it(tmp_path, text, capsys):
    file = tmp_path / "small.toml"
    file.write_text(
        f"""preset = "original"
[model]
d_model = 8
d_ff = 16
num_heads = 2
num_layers = 1
max_seq_len = 16
[training]
seq_len = 17
num_merges = 5
epochs = 9
preflight = false
sample_tokens = 0
epoch_sample_tokens = 0
[training.data]
data = '{text}'
batch_size = 8
[training.optimizer]
learning_rate = 1e-2
[training.hardware]
workers = 1
micro_batch_size = 4
[training.logging]
log_every = 1
""",
        encoding="utf-8",
    )
    out = tmp_path / "from file"
    flags = ["--config", str(file), "--out", str(out), "--epochs", "2"]
    assert example("train", flags) == 0
    train(tmp_path / "whole", text)
    assert_same_weights(out, tmp_path / "whole")
    assert "--preset best" not in capsys.readouterr().out

    again = tmp_path / "again"  # from the run's own record
    assert example("train", ["--config", str(out / "config.json"), "--out", str(again)]) == 0
    assert_same_weights(again, out)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[training]\nlearning = 1", "no setting 'learning'"),
        ("[training]\nepochs = 'two'", "epochs must be int"),
        ("[training.optimizer]\nepochs = 2", r"\[training.optimizer\] has"),
        ("training = 3", "must be a table"),
        ("epochs = 2", "not {'epochs': 2}"),
        ("preset = 'worst'", "not 'worst'"),
        ("[model\n", "neither TOML nor"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path, capsys, content, problem):
    file = tmp_path / "wrong.toml"
    file.write_text(content, encoding="utf-8")
    assert example("train", ["--config", str(file), "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert str(file) in error and "Traceback" not in error
    assert re.search(problem, error)
    assert not (tmp_path / "run").exists()


def test_every_setting_is_in_a_group():
    groups = groups_of(TrainConfig)
    assert list(groups) == ["data", "start", "length", "optimizer", "hardware", "logging"]
    assert sum(map(len, groups.values())) == len(TrainConfig.__dataclass_fields__)


# Existing weights


@pytest.mark.parametrize("changes", [{}, {"pre_norm": True, "tie_weights": True}])
def test_a_run_begins_with_the_weights_of_another(tmp_path, text, monkeypatch, changes):
    first = train(tmp_path / "first", text, changes)
    other = tmp_path / "other.txt"
    other.write_text(text.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    sizes = {name: getattr(ModelConfig, name) for name in MODEL}  # defaults: as in the file
    second = train(
        *(tmp_path / "second", other, sizes), init_from=str(tmp_path / "first"), max_steps=3
    )
    assert second.tokenizer.vocabulary == first.tokenizer.vocabulary
    assert second.model.config == first.model.config
    path = RunFolder(tmp_path / "second").checkpoints / "step-00000000/model.safetensors"
    if path.exists():
        begun = load_safetensors(path)[0]
        best = load_safetensors(tmp_path / "first/model.safetensors")[0]
        assert begun.keys() == best.keys()
        assert all(np.array_equal(begun[name], best[name]) for name in best)
    config = json.loads((tmp_path / "second/config.json").read_text(encoding="utf-8"))
    assert config["training"]["init_from"] == str(tmp_path / "first")
    whole = train(tmp_path / "whole", other, sizes, init_from=str(tmp_path / "first"))
    assert whole.metrics.losses[0][1] < 5  # ln V is 5.5
    latest = RunFolder(tmp_path / "first").latest()  # a checkpoint works too
    third = train(tmp_path / "third", other, sizes, init_from=str(latest), max_steps=1)
    assert third.model.config == first.model.config and third.metrics.losses[0][1] < 5
    monkeypatch.chdir(tmp_path)  # where "first" is a path too
    resumed = resume(tmp_path / "second", max_steps=0, init_from="first")
    assert resumed.records[-1]["val_loss"] == whole.records[-1]["val_loss"]
    assert_same_weights(tmp_path / "second", tmp_path / "whole")


def test_how_texts_end_and_conversations_are_written_stays(tmp_path, text):
    """In a run that begins with another run's weights, and after it was resumed."""
    train(tmp_path / "first", text, max_steps=1)
    model, tokenizer, _ = load_model(tmp_path / "first")
    model.end_tokens, model.chat_template = (7,), ChatTemplate("{{ messages }}", {"bos_token": "a"})
    (tmp_path / "chatty").mkdir()
    save_model(tmp_path / "chatty", model, tokenizer)
    sizes = {name: getattr(ModelConfig, name) for name in MODEL}
    settings = {"init_from": str(tmp_path / "chatty"), "max_steps": 2}
    train(tmp_path / "second", text, sizes, **settings)
    resume(tmp_path / "second", max_steps=4)
    found = load_model(tmp_path / "second/checkpoints/latest").model
    assert (found.end_tokens, found.chat_template) == (model.end_tokens, model.chat_template)


def test_other_sizes_than_the_models_are_refused(tmp_path, text):
    train(tmp_path / "first", text, max_steps=1)
    with pytest.raises(ConfigError, match="d_model: 8 there, 12 here"):
        train(tmp_path / "second", text, {"d_model": 12}, init_from=str(tmp_path / "first"))
    with pytest.raises(FileNotFoundError, match="no trained model"):
        train(tmp_path / "second", text, init_from=str(tmp_path / "nothing"))
    for same in ("first", "first/checkpoints/best"):
        with pytest.raises(ConfigError, match="is in --out itself"):
            train(tmp_path / "first", text, init_from=str(tmp_path / same))
    assert not (tmp_path / "second").exists()
    flags = ["--init-from", str(tmp_path / "first"), "--data", str(text), "--max-steps", "1"]
    flags += ["--out", str(tmp_path / "by flags"), "--no-preflight", "--workers", "1"]
    assert example("train", flags) == 0
    config = json.loads((tmp_path / "by flags/config.json").read_text(encoding="utf-8"))
    assert config["model"]["d_model"] == 8 and config["training"]["seq_len"] == 17


def test_what_is_frozen_stays_and_the_rest_learns(tmp_path, text):
    frozen = "embedding.*, *.bias"
    whole = train(tmp_path / "run", text, freeze=frozen, ema=0.9)
    before = TinyAlpaca(whole.model.config, Generator(0)).state_dict()
    after = final_weights(tmp_path / "run")
    for name, weights in after.items():
        same = np.array_equal(weights, before[name])
        assert same == (name.startswith("embedding.") or name.endswith(".bias")), name
    assert not any(name.endswith(".bias") for name in whole.task.names)
    train(tmp_path / "parts", text, freeze=frozen, ema=0.9, max_steps=5)
    resumed = resume(tmp_path / "parts", max_steps=0)
    assert resumed.records[-1]["val_loss"] == whole.records[-1]["val_loss"]
    assert_same_weights(tmp_path / "parts", tmp_path / "run")


@pytest.mark.parametrize(
    ("pattern", "problem"), [("*.wheel", "matches no parameter"), ("*", "leaves no parameter")]
)
def test_a_pattern_that_freezes_nothing_or_everything(tmp_path, text, pattern, problem):
    with pytest.raises(ConfigError, match=problem):
        train(tmp_path / "run", text, freeze=pattern)


# Validations between epochs


def test_validations_every_so_many_steps(tmp_path, text):
    plain = train(tmp_path / "plain", text)
    run = train(tmp_path / "run", text, eval_every=3, epoch_sample_tokens=3)
    steps, epochs = [r["step"] for r in run.records], plain.task.steps_per_epoch
    assert steps == sorted({*range(3, run.state.step + 1, 3), epochs, 2 * epochs})
    kinds = {r["step"]: r["kind"] for r in run.records}
    assert kinds[3] == "validation" and kinds[epochs] == "epoch"
    assert_same_weights(tmp_path / "run", tmp_path / "plain")
    by_step = {r["step"]: r["val_loss"] for r in run.records}
    assert all(by_step[r["step"]] == r["val_loss"] for r in plain.records)
    best = min(run.records, key=lambda r: r["val_loss"])
    assert RunFolder(tmp_path / "run").best().name == f"step-{best['step']:08d}"
    train(tmp_path / "parts", text, eval_every=3, epoch_sample_tokens=3, max_steps=4)
    again = resume(tmp_path / "parts", max_steps=0)
    assert [r["val_loss"] for r in again.records if r["step"] != 4] == [
        r["val_loss"] for r in run.records
    ]
    assert_same_weights(tmp_path / "parts", tmp_path / "plain")
