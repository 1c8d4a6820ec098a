"""The look at model and data before training: what passes, what is refused, what is left alone."""

import math

import numpy as np
import pytest

from tests.tinyalpaca.runs import MODEL, TRAINING, resume, train, write_text
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.training import training_parts
from tinyalpaca.training.preflight import PreflightError, duration, preflight
from tinyalpaca.training.run_folder import RunFolder
from tinyalpaca.training.stopping import Stopping
from tinyalpaca.training.training_run import choose_device, prepare


@pytest.fixture
def trainer(tmp_path):
    """A trainer before its first step."""
    text = write_text(tmp_path)
    config = TrainConfig(**{**TRAINING, "data": str(text), "out": str(tmp_path / "run")})
    run = RunFolder(tmp_path / "run")
    model = ModelConfig(**MODEL)
    device = choose_device("cpu")
    with run.open():
        yield prepare(model, config, None, device, run, Stopping(), lambda line: None)[0]


def test_it_finds_what_it_expects_and_changes_nothing(trainer):
    before = trainer.engine.flat.data.copy()
    sampler = trainer.sampler.state_dict()
    findings = preflight(trainer)
    assert findings.start_loss == pytest.approx(math.log(trainer.tokenizer.vocab_size), rel=0.08)
    assert findings.learned_loss < 0.9 * findings.start_loss
    assert findings.step_seconds > 0 and findings.run_seconds > findings.step_seconds
    assert findings.memory_mb is None or findings.memory_mb > 10
    assert not findings.warnings
    assert "ln V" in findings.lines()[0] and "s a step" in findings.lines()[1]
    assert np.array_equal(trainer.engine.flat.data, before)
    assert trainer.sampler.state_dict() == sampler


def test_a_run_is_the_same_with_and_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyalpaca.training.epochs.plots_available", lambda: False)
    text = write_text(tmp_path)
    losses = []
    for preflight_wanted in (True, False):
        trainer = train(tmp_path / "run", text, epochs=1, preflight=preflight_wanted)
        losses.append(trainer.step_losses)
    assert losses[0] == losses[1]
    assert resume(tmp_path / "run", preflight=True).stopped is None


def test_a_parameter_without_a_gradient_is_named(trainer, monkeypatch):
    model = trainer.model
    monkeypatch.setattr(model.decoder_layers[0].ffn, "forward", lambda x: x * 0.5)
    with pytest.raises(PreflightError, match=r"decoder_layers\.0\.ffn\.fc1\.weight.*zero"):
        preflight(trainer)


def test_a_model_that_cannot_learn_is_refused(trainer, monkeypatch):
    original = training_parts.train_loss

    def against(model, config, part, key):
        return original(model, config, part, key) * -1.0

    monkeypatch.setattr(training_parts, "train_loss", against)
    with pytest.raises(PreflightError, match="cannot be learned"):
        preflight(trainer)


def test_weights_that_overflow_are_refused(trainer):
    trainer.model.final_linear.weight.data[...] = np.inf
    with pytest.raises(PreflightError, match="overflow"):
        preflight(trainer)


def test_a_strange_first_loss_is_a_warning(trainer):
    trainer.model.final_linear.weight.data *= 20
    findings = preflight(trainer)
    assert len(findings.warnings) == 1 and "ln V" in findings.warnings[0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "about 3 s"), (600, "about 10 min"), (9000, "about 2.5 h")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text
