"""The pre-flight before training: what it accepts, what it refuses, and what it does not change."""

import math

import numpy as np
import pytest

from minigrad.device import choose_device
from tests.tinyalpaca.runs import MODEL, TRAINING, resume, train, write_text
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.evaluation import summed_loss
from tinyalpaca.runs import RunFolder
from tinyalpaca.training.hooks.preflight import PreflightError, duration
from tinyalpaca.training.job import prepare
from tinyalpaca.training.loss import Loss
from tinyalpaca.training.texts import read_tokens


@pytest.fixture
def run(tmp_path):
    """A run before its first step."""
    text = write_text(tmp_path)
    config = TrainConfig(**{**TRAINING, "data": str(text), "out": str(tmp_path / "run")})
    folder = RunFolder(tmp_path / "run")
    model = ModelConfig(**MODEL)
    device = choose_device("cpu")
    with folder.open():
        texts = read_tokens(config, None, folder, lambda line: None, lambda line: None)
        yield prepare(model, config, None, device, folder, lambda line: None, texts)


def test_it_finds_what_it_expects_and_changes_nothing(run):
    before = run.task.engine.flat.data.copy()
    sampler = run.task.sampler.state_dict()
    findings = run.preflight.look()
    assert findings.start_loss == pytest.approx(math.log(run.tokenizer.vocab_size), rel=0.08)
    assert findings.learned_loss < 0.9 * findings.start_loss
    assert findings.step_seconds > 0 and findings.run_seconds > findings.step_seconds
    assert findings.memory_mb is None or findings.memory_mb > 10
    assert not findings.warnings
    assert "ln V" in findings.lines()[0] and "s a step" in findings.lines()[1]
    assert np.array_equal(run.task.engine.flat.data, before)
    assert run.task.sampler.state_dict() == sampler


def test_a_run_is_the_same_with_and_without_it(tmp_path):
    text = write_text(tmp_path)
    losses = []
    for preflight_wanted in (True, False):
        again = train(tmp_path / "run", text, epochs=1, preflight=preflight_wanted)
        losses.append(again.metrics.losses)
    assert losses[0] == losses[1]
    assert resume(tmp_path / "run", preflight=True).stopped is None


def test_a_parameter_without_a_gradient_is_named(run, monkeypatch):
    model = run.task.model
    monkeypatch.setattr(model.decoder_layers[0].ffn, "forward", lambda x: x * 0.5)
    with pytest.raises(PreflightError, match=r"decoder_layers\.0\.ffn\.fc1\.weight.*zero"):
        run.preflight.look()


def test_a_model_that_cannot_learn_is_refused(run):
    run.task.loss.function = lambda model, x, y: (
        summed_loss(model, x, y) * (-1.0 if model.training else 1.0)
    )
    with pytest.raises(PreflightError, match="cannot be learned"):
        run.preflight.look()


def test_a_run_that_is_refused_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    text, folder = write_text(tmp_path), tmp_path / "run"
    train(folder, text, epochs=1)
    there = {
        p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != ".lock"
    }
    original = Loss.training
    monkeypatch.setattr(Loss, "training", lambda *arguments: original(*arguments) * -1.0)
    with pytest.raises(PreflightError, match="cannot be learned"):
        train(folder, text, epochs=1, preflight=True)
    for path, changed in there.items():
        assert path.stat().st_mtime_ns == changed or path.name == "tokenizer.json", path
    assert not (folder / "earlier").exists()


def test_weights_that_overflow_are_refused(run):
    run.task.model.final_linear.weight.data[...] = np.inf
    with pytest.raises(PreflightError, match="overflow"):
        run.preflight.look()


def test_a_strange_first_loss_is_a_warning(run):
    run.task.model.final_linear.weight.data *= 20
    findings = run.preflight.look()
    assert len(findings.warnings) == 1 and "ln V" in findings.warnings[0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "about 3 s"), (600, "about 10 min"), (9000, "about 2.5 h")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text
