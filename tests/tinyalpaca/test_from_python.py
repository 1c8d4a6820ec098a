"""Training from Python with your own model, optimizer and hooks, which the written files name."""

import dataclasses
import json
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.errors import KernelFallbackWarning
from minigrad.storage import FileFormatError
from tests.tinyalpaca.runs import MODEL, TRAINING, assert_same_weights, write_text
from tests.tinyalpaca.tiny_models import tiny_tokenizer
from tinyalpaca import (
    Data,
    Generator,
    Hook,
    ModelConfig,
    TinyAlpaca,
    TrainConfig,
    load,
    save,
    train,
)
from tinyalpaca.config import ConfigError
from tinyalpaca.training import hooks, job

ROOT = Path(__file__).parents[2]


class Squared(TinyAlpaca):
    """Another model, whose logits are half as large."""

    def forward(self, ids):
        return super().forward(ids) * 0.5


class Table(nn.Module):
    """A model of another kind: the next token depends on the last one only."""

    def __init__(self, config, rng):
        self.config = config
        self.table = nn.Parameter(rng.normal((config.vocab_size, config.vocab_size), std=0.02))

    def forward(self, ids):
        return self.table[ids]


class Told(Hook):
    """Records the calls of its methods."""

    def __init__(self):
        self.steps, self.epochs, self.ended = [], [], None

    def on_step(self, state, made):
        self.steps.append((state.step, made.results[-1].loss))

    def on_validation(self, state):
        return {"twice": 2 * state.step}

    def on_epoch(self, state, record):
        self.epochs.append(record["val_loss"])

    def on_stop(self, state, reason):
        self.ended = (state.step, reason)


def momentum(groups):
    return optim.SGD(groups, lr=0.5, momentum=0.9)


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


def config_for(folder, text, **changes):
    return TrainConfig(**{**TRAINING, "data": str(text), "out": str(folder), **changes})


def test_a_model_an_optimizer_and_a_hook_of_ones_own(tmp_path, text):
    told, out = Told(), tmp_path / "run"
    config, parts = config_for(out, text), {"model": Squared, "optimizer": momentum}
    run = train(config, ModelConfig(**MODEL), **parts, hooks=[told])
    assert [step for step, _ in told.steps] == list(range(1, run.state.step + 1))
    assert told.epochs == [record["val_loss"] for record in run.records]
    assert told.epochs[-1] < told.epochs[0] and told.ended == (run.state.step, None)
    assert run.records[-1]["twice"] == 2 * run.state.step
    content = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert content["training"]["out"] == str(out) and content["training"]["data"] == str(text)
    assert content["own"]["model"] == "Squared"
    assert content["own"]["optimizer"].startswith("SGD(lr=0.5, momentum=0.9")

    loaded = load(out, model=Squared)
    ids = np.array([[1, 2, 3]])
    np.testing.assert_array_equal(loaded.model(ids).numpy(), run.model(ids).numpy())
    with pytest.raises(FileFormatError, match="weights of a Squared"):
        load(out)
    with pytest.raises(ConfigError, match="optimizer: SGD"):
        train(config, model=Squared, resume=True)


class Summed(nn.Module):
    def forward(self, model, x, y):
        return model.loss(x, y, reduction="sum")


def test_a_loss_may_be_an_object_that_is_called(tmp_path, text):
    for name, loss in {"module": Summed(), "function": Summed().forward}.items():
        config = config_for(tmp_path / name, text, max_steps=2)
        train(config, ModelConfig(**MODEL), loss=loss)
    assert_same_weights(tmp_path / "module", tmp_path / "function")


def test_such_a_run_resumes_bit_for_bit(tmp_path, text):
    sizes, parts = ModelConfig(**MODEL), {"model": Squared, "optimizer": momentum}
    train(config_for(tmp_path / "whole", text), sizes, **parts)
    train(config_for(tmp_path / "run", text, max_steps=5), sizes, **parts)
    run = train(config_for(tmp_path / "run", text), sizes, **parts, resume=True)
    assert run.stopped is None
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_began_with_weights_is_resumed_with_the_same_settings(tmp_path, text):
    train(config_for(tmp_path / "first", text, max_steps=3), ModelConfig(**MODEL))
    config = config_for(tmp_path / "run", text, init_from=str(tmp_path / "first"), max_steps=3)
    train(config)
    assert train(dataclasses.replace(config, max_steps=5), resume=True).state.step == 5
    other = dataclasses.replace(config, out=str(tmp_path / "other"))
    assert type(train(other, model=Squared).model) is Squared  # with the weights of ours
    made = dataclasses.replace(config, out=str(tmp_path / "made"))

    def make(config, rng):
        return Squared(config, rng)

    train(made, model=make)
    assert train(made, model=make, resume=True).state.step == 3


def test_any_module_any_loss_and_tokens_that_are_there(tmp_path):
    rng, tokenizer = np.random.default_rng(0), tiny_tokenizer()
    tokens = np.tile(rng.integers(0, tokenizer.vocab_size, 40), 30)
    data = Data(tokens[:1000], tokens[1000:], 200)

    def loss(model, x, y):
        return nn.functional.cross_entropy(model(x), y, reduction="sum", label_smoothing=0.01)

    config = TrainConfig(**{**TRAINING, "out": str(tmp_path / "run"), "learning_rate": 0.1})
    sizes = ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=16)
    given = {"model": Table, "loss": loss, "data": data, "tokenizer": tokenizer}
    run = train(config, sizes, **given)
    assert run.records[-1]["val_loss"] < run.records[0]["val_loss"]
    own = json.loads((tmp_path / "run/config.json").read_text(encoding="utf-8"))["own"]
    assert own == {"model": "Table", "loss": "loss", "data": "given in Python"}
    again = train(config, sizes, **given, resume=True)
    assert again.state.step == run.state.step
    with pytest.raises(ValueError, match="another text"):
        train(
            config, sizes, **{**given, "data": data._replace(train=data.train[::-1])}, resume=True
        )
    with pytest.raises(ConfigError, match="give the tokenizer"):
        train(config, sizes, model=Table, data=data)


def test_the_hook_in_the_documentation(tmp_path, text, monkeypatch):
    calls = []
    seen = []
    run = SimpleNamespace(
        log=lambda what, step: calls.append((step, what)), finish=lambda: seen.extend(calls)
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda project: run))
    code = textwrap.dedent(hooks.__doc__[hooks.__doc__.index("    class ") :])
    names = {"Hook": Hook}
    exec(code, names)
    config = config_for(tmp_path / "run", text, epochs=1)
    trained = train(config, ModelConfig(**MODEL), hooks=[names["WeightsAndBiases"]()])
    assert [what["loss"] for _, what in seen if "loss" in what] == [
        loss for _, loss in trained.metrics.losses
    ]
    assert seen[-1] == (trained.state.step, {"val_loss": trained.records[-1]["val_loss"]})


def test_the_text_is_that_of_the_model_itself(tmp_path):
    """Generation has a copy of TinyAlpaca's forward pass, and uses it for TinyAlpaca only."""
    tokenizer = tiny_tokenizer()
    sizes = ModelConfig(**{**MODEL, "vocab_size": tokenizer.vocab_size})
    ours, other = (kind(sizes, mg.Generator(0)) for kind in (TinyAlpaca, Squared))
    for model in (ours, other):
        with mg.textbook():
            expected = Generator(model, tokenizer).generate("ab", 20, temperature=2.0, seed=3)
        with warnings.catch_warnings():
            if model is other:
                warnings.simplefilter("ignore", KernelFallbackWarning)
            made = Generator(model, tokenizer).generate("ab", 20, temperature=2.0, seed=3)
        assert made == expected
    (tmp_path / "model").mkdir()
    save(tmp_path / "model", other, tokenizer)
    assert type(load(tmp_path / "model", model=Squared).model) is Squared


def test_importing_the_package_imports_little():
    code = "import sys, tinyalpaca; print('numpy' in sys.modules, tinyalpaca.TinyAlpaca.__name__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "TinyAlpaca"]


def test_every_public_name_is_there():
    import tinyalpaca

    for name in tinyalpaca.__all__:
        assert getattr(tinyalpaca, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'alpaca'"):
        _ = tinyalpaca.alpaca
    assert tinyalpaca.train is job.train
