"""How training uses its settings, and what it does about NaN."""

import io
import json
import math

import numpy as np
import pytest

from minigrad import Generator
from minigrad.optim import SGD, FlatParameters, WarmupLinearLR
from minigrad.parallel import MICRO_KEYS
from minigrad.storage import load_safetensors
from tests.tinyalpaca.runs import MODEL, assert_same_weights, resume, train, write_text
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs import RunFolder
from tinyalpaca.training.defaults import make_schedule, parameter_groups
from tinyalpaca.training.hooks.average import WeightAverage
from tinyalpaca.training.hooks.lines import progress_bar
from tinyalpaca.training.hooks.metrics import Metrics, UpdateRatios
from tinyalpaca.training.loss import Loss
from tinyalpaca.training.metrics_file import read_metrics
from tinyalpaca.training.state import TrainingState
from tinyalpaca.training.stopping import TrainingStopped
from tinyalpaca.training.task import Task


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


def small_model(**settings):
    config = ModelConfig(**{**MODEL, "vocab_size": 11, **settings})
    return TinyAlpaca(config, Generator(0))


# NaN and infinity


@pytest.fixture
def poison(monkeypatch):
    """Make the losses of the steps with these numbers (from 0) infinite."""

    def poisoned(*steps):
        original = Loss.training

        def loss(self, part, key):
            value = original(self, part, key)
            return value * math.inf if key // MICRO_KEYS in steps else value

        with monkeypatch.context() as patch:
            patch.setattr(Loss, "training", loss)
            yield

    return poisoned


def test_an_infinite_loss_stops_with_the_last_good_weights_and_the_evidence(tmp_path, text, poison):
    whole = train(tmp_path / "whole", text)
    for _ in poison(3):
        with pytest.raises(TrainingStopped) as error:
            train(tmp_path / "run", text)
    message = str(error.value)
    latest = RunFolder(tmp_path / "run").latest()
    assert latest.name == "step-00000003" and str(latest) in message
    assert "step 4: loss inf" in message and "multiply" in message
    report = tmp_path / "run/bad-steps/step-00000004"
    content = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert content["op"] == "multiply" and content["phase"] == "forward" and content["texts"]
    arrays, _ = load_safetensors(report / "batch.safetensors")
    assert arrays["0/x"].shape == arrays["0/y"].shape == (8, 16)
    assert resume(tmp_path / "run").state.step == whole.state.step  # the cause is gone
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_weights_that_are_useless_are_not_saved(tmp_path, text):
    with pytest.raises(TrainingStopped) as error:
        train(tmp_path / "run", text, learning_rate=1e30, grad_clip=0.0)
    assert "useless already" in str(error.value) and "step-00000000" in str(error.value)
    assert "module" in str(error.value)
    for weights in load_safetensors(tmp_path / "run/model.safetensors")[0].values():
        assert np.isfinite(weights).all()


def test_bad_steps_can_be_left_out(tmp_path, text, poison, capsys):
    for _ in poison(3, 5):
        run = train(tmp_path / "run", text, skip_bad_steps=True, epochs=1)
    assert run.state.skipped == 2 and run.state.records[-1]["skipped_steps"] == 2
    assert run.state.step == run.task.total_steps
    assert math.isfinite(run.state.records[-1]["train_loss"])
    assert capsys.readouterr().err.count("left out step") == 2
    assert (tmp_path / "run/bad-steps/step-00000006/report.json").is_file()


def test_too_many_bad_steps_in_a_row_stop(tmp_path, text, poison):
    for _ in poison(*range(3, 99)):
        with pytest.raises(TrainingStopped, match="step 13"):
            train(tmp_path / "run", text, skip_bad_steps=True, epochs=9)


# Settings


def test_accumulated_batches_are_one_large_batch(tmp_path, text):
    settings = {"windows": "random", "epochs": 1, "max_steps": 4}
    model = {"bias": False}  # a key's bias has a gradient of rounding errors, which Adam enlarges
    large = train(tmp_path / "large", text, model, batch_size=8, **settings)
    small = train(tmp_path / "small", text, model, batch_size=4, accumulate=2, **settings)
    assert small.task.steps_per_epoch == large.task.steps_per_epoch
    for a, b in zip(large.task.parameters, small.task.parameters, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=2e-6)


def test_patience_ends_a_run_that_gets_no_better(tmp_path, text, monkeypatch):
    original, scores = Task.validate, iter([2.0, 1.0, 1.5, 1.25, 0.5])

    def validate(self, *arguments):
        score = original(self, *arguments)
        return score._replace(nats=next(scores) * score.tokens)

    monkeypatch.setattr(Task, "validate", validate)
    run = train(tmp_path / "run", text, epochs=9, patience=2)
    assert [r["val_loss"] for r in run.state.records] == [2.0, 1.0, 1.5, 1.25]
    assert run.stopped is None


def test_vectors_need_not_decay_and_muon_gets_the_layers_matrices():
    model = small_model()
    names = {id(p): name for name, p in model.named_parameters()}
    (everything,) = parameter_groups(model, TrainConfig())
    assert [names[id(p)] for p in everything["params"]] == list(names.values())
    groups = parameter_groups(model, TrainConfig(decay="matrices", optimizer="muon"))
    found = {}
    for group in groups:
        for parameter in group["params"]:
            muon = group.get("orthogonal", False)
            found[names[id(parameter)]] = (group["weight_decay"], muon, group.get("parts"))
    assert found.keys() == set(names.values())
    assert found["embedding.token_embed"] == (0.01, False, None)
    assert found["decoder_layers.0.layer_norm1.weight"] == (0.0, False, None)
    assert found["decoder_layers.0.ffn.fc1.bias"] == (0.0, False, None)
    assert found["decoder_layers.0.ffn.fc1.weight"] == (0.01, True, 1)
    assert found["decoder_layers.0.multi_head_attention.qkv_proj.weight"] == (0.01, True, 3)


def test_the_linear_schedule_warms_up_and_ends_at_its_least():
    optimizer = SGD(small_model().parameters(), lr=0.5)
    schedule = WarmupLinearLR(optimizer, warmup_steps=4, total_steps=14, eta_min=0.1)
    rates = []
    for _ in range(16):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert rates[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert rates[4:14] == pytest.approx([0.5 - 0.04 * n for n in range(10)])
    assert rates[14:] == pytest.approx([0.1, 0.1])
    with pytest.raises(ValueError, match="needs 0 <= warmup_steps <= total_steps"):
        WarmupLinearLR(optimizer, 5, 4)
    made = make_schedule(optimizer, TrainConfig(schedule="linear"), 5, 50)
    assert isinstance(made, WarmupLinearLR) and made.total_steps == 50


def test_the_average_of_the_weights_follows_its_formula_and_is_what_is_saved(tmp_path, text):
    model = small_model()
    flat = FlatParameters(model.parameters())
    average, expected = WeightAverage(flat, 0.5), flat.data.astype(np.float64)
    for step in (1, 2, 3, 30):
        flat.data += 0.25 * step
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * flat.data
    np.testing.assert_allclose(average.average, expected, rtol=1e-5)
    kept = flat.data.copy()
    with average.in_use():
        assert np.array_equal(model.parameters()[0].data.reshape(-1), average.average[: 11 * 8])
    assert np.array_equal(flat.data, kept)
    run = train(tmp_path / "run", text, ema=0.9, epochs=1)
    latest = RunFolder(tmp_path / "run").latest()
    weights, _ = load_safetensors(latest / "model.safetensors")
    arrays, _ = load_safetensors(latest / "optimizer.safetensors")
    name = run.task.names[0]
    assert np.abs(weights[name] - arrays[f"weights/{name}"]).max() > 1e-4


def test_characters_can_be_the_tokens(tmp_path, text):
    run = train(tmp_path / "run", text, tokenizer="char", epochs=1)
    assert run.tokenizer.vocab_size == len(set(text.read_text(encoding="utf-8")))
    assert run.state.records[0]["val_nats_per_char"] == pytest.approx(
        run.state.records[0]["val_loss"], rel=0.01
    )


# What is printed


def test_metrics_hold_what_is_promised(tmp_path, text):
    train(tmp_path / "run", text, epochs=2, log_every=3, epoch_sample_tokens=5)
    records = read_metrics(tmp_path / "run/metrics.jsonl")
    steps = [r for r in records if r["kind"] == "step"]
    epochs = [r for r in records if r["kind"] == "epoch"]
    assert [r["step"] for r in steps] == list(range(3, epochs[-1]["step"] + 1, 3))
    assert len(epochs) == 2
    for record in steps:
        assert {"loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_mb"} <= {*record}
        assert record["update_ratio"].keys() == {"embedding", "decoder_layers.0", "final_linear"}
        assert all(1e-6 < ratio < 10 for ratio in record["update_ratio"].values())
    for record in epochs:
        assert record["val_perplexity"] == pytest.approx(math.exp(record["val_loss"]))
        bits = record["val_nats_per_char"] / math.log(2)
        assert record["val_bits_per_char"] == pytest.approx(bits)
        assert {"epoch", "train_loss", "seconds", "tokens_per_second", "memory_mb"} <= {*record}
        assert record["sample"].startswith("the ")


def test_tensorboard_reads_the_events(tmp_path, text):
    """The package's own reader finds every number of every record, also after a resume."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(module, reason="the extra tensorboard is not installed")
    train(tmp_path / "run", text, epochs=1, tensorboard=True)
    run = resume(tmp_path / "run", epochs=2)
    events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    losses = events.Scalars("step/loss")
    assert [e.step for e in losses] == list(range(1, run.state.step + 1))
    assert [e.value for e in losses] == pytest.approx([loss for _, loss in run.metrics.losses])
    validation = [e.value for e in events.Scalars("epoch/val_nats_per_char")]
    assert validation == pytest.approx([r["val_nats_per_char"] for r in run.state.records])
    assert "step/update_ratio/decoder_layers.0" in events.Tags()["scalars"]


def test_update_ratios_are_the_change_over_the_size():
    model = small_model()
    flat = FlatParameters(model.parameters())
    ratios = UpdateRatios(flat, [name for name, _ in model.named_parameters()])
    ratios.remember()
    for parameter in model.decoder_layers[0].parameters():
        parameter.data *= 1.01
    measured = ratios.measure()
    assert measured["decoder_layers.0"] == pytest.approx(0.01, rel=1e-4)
    assert measured["embedding"] == measured["final_linear"] == 0


def test_a_torn_last_line_of_the_metrics_is_passed_over(tmp_path):
    log = Metrics(tmp_path, every=1)
    log.on_start(TrainingState({}))
    log.write({"kind": "step", "step": 1})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "st')
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"kind": "step", "step": 1}]


def test_quiet_prints_the_result_and_nothing_else(tmp_path, text, capsys):
    train(tmp_path / "run", text, epochs=1)
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1 and captured.out.startswith("Best validation: ")
    assert captured.err == ""


def test_each_epoch_prints_a_line_and_a_sample(tmp_path, text, capsys):
    train(tmp_path / "run", text, epochs=2, quiet=False, epoch_sample_tokens=8)
    out = capsys.readouterr().out
    assert out.count("Epoch [") == 2 and out.count("    the ") == 2
    assert "Epoch [2/2] | Train Loss: " in out


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_for_terminals(monkeypatch, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bar("Epoch 1/1", total=3) as bar:
        bar.update(3)
    assert ("Epoch 1/1" in stream.getvalue()) == terminal
    with progress_bar("Epoch 1/1", total=3, quiet=True) as bar:
        bar.update(3)
    assert stream.getvalue().count("Epoch 1/1") <= 9 * terminal
