"""Compares our trainer with losses from an independent program, `reference/make.py`.

Tests that compare a resumed run with a whole one, or two devices, miss faults that both sides have.
"""

import json
import math
import sys

import numpy as np
import pytest

from minigrad import Generator
from tests.tinyalpaca.reference.setting import CASES, LOSSES, MODEL, TRAINING, tokens, weights
from tests.tinyalpaca.runs import StopAt, resume, train, write_text
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs import RunFolder
from tinyalpaca.tokenizer import CharTokenizer
from tinyalpaca.training import job
from tinyalpaca.training.checkpoint import read_training
from tinyalpaca.training.hooks import curve
from tinyalpaca.training.hooks.report import REPORT
from tinyalpaca.training.run import Run
from tinyalpaca.training.task import Data

STORED = json.loads(LOSSES.read_text(encoding="utf-8"))
# Our trainer computes in float32, the other program in float64. Ten steps of Adam enlarge the
# difference, more for small gradients; the largest difference seen is a sixth of this.
RELATIVE = 3e-5
TOKENIZER = CharTokenizer.train(["abcdefghijk"])


def run_of(case, folder, saved=None, stopping=None, **more):
    """A run with a case's settings and the common initial weights."""
    model_changes, changes = CASES[case]
    model = TinyAlpaca(ModelConfig(**{**MODEL, **model_changes}), Generator(0))
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict({k: v.astype(np.float32) for k, v in weights(shapes).items()})
    training, validating = tokens()
    settings = {"workers": 1, "epoch_sample_tokens": 0, "log_every": 1, "quiet": True}
    settings |= {"preflight": case in ("dropout", "muon")}  # it changes nothing, and takes long
    config = TrainConfig(**{**TRAINING, **changes, **settings, **more})
    data = Data(training, validating, len(validating))
    return Run(model, TOKENIZER, data, config, folder, saved=saved, stopping=stopping)


def assert_as_stored(case, run):
    losses = [loss for _, loss in run.metrics.losses]
    validations = [record["val_loss"] for record in run.state.records]
    np.testing.assert_allclose(losses, STORED[case]["losses"], rtol=RELATIVE)
    np.testing.assert_allclose(validations, STORED[case]["validations"], rtol=RELATIVE)


def test_the_numbers_are_those_of_the_cases():
    assert STORED.keys() == CASES.keys()
    for stored in STORED.values():
        assert len(stored["losses"]) == 10 and len(stored["validations"]) == 2


@pytest.mark.parametrize("case", CASES)
def test_ten_losses_and_two_validations(tmp_path, case):
    run = run_of(case, tmp_path)
    run.train()
    assert_as_stored(case, run)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")
@pytest.mark.parametrize("case", ["accumulated dropout", "decay of matrices"])
def test_so_do_workers(tmp_path, case):
    run = run_of(case, tmp_path, workers=2)
    run.train()
    assert_as_stored(case, run)


@pytest.mark.parametrize(
    "case",
    ["accumulated dropout", "restarts", "average, accumulated", "shifted windows", "cooldown"],
)
@pytest.mark.parametrize("stop", [3, 5, 8])
def test_so_does_a_run_that_was_stopped_and_resumed(tmp_path, case, stop):
    first = run_of(case, tmp_path, stopping=StopAt(stop))
    first.train()
    assert first.state.step < 10
    second = run_of(case, tmp_path, saved=read_training(RunFolder(tmp_path).latest()))
    second.train()
    assert_as_stored(case, second)


def test_every_setting_of_a_case_matters():
    """No two cases have the same losses, so this finds a setting that is ignored."""
    found = list(STORED.values())
    for number, one in enumerate(found):
        for other in found[:number]:
            assert not np.allclose(
                [*one["losses"], *one["validations"]],
                [*other["losses"], *other["validations"]],
                rtol=100 * RELATIVE,
            )


@pytest.mark.slow
def test_the_other_program_still_gives_these_numbers():
    pytest.importorskip("torch", reason="the other program is in PyTorch")
    from tests.tinyalpaca.reference.make import main

    assert main(["--check"]) == 0


# Errors and reports of a run


def test_another_seed_at_resume_is_refused(tmp_path, monkeypatch):
    """A run with half of its steps from each seed would be the run of neither seed."""
    text = write_text(tmp_path)
    monkeypatch.setattr(job, "Stopping", lambda *_: StopAt(4))
    train(tmp_path / "run", text, seed=1)
    monkeypatch.undo()
    step = RunFolder(tmp_path / "run").latest().name
    with pytest.raises(ConfigError, match="seed: 1 before, 2 now"):
        resume(tmp_path / "run", seed=2)
    assert RunFolder(tmp_path / "run").latest().name == step  # nothing has changed
    assert resume(tmp_path / "run", seed=1).config.seed == 1


def test_the_report_says_bits_where_it_says_bits(tmp_path):
    run = run_of("betas", tmp_path)
    run.train()
    page = run.report.render(run.state)
    per_token = min(STORED["betas"]["validations"])
    characters = len(tokens()[1])  # each is a token here, and the first is not predicted
    nats = per_token * (characters - 1) / characters
    tile = '<div class="tile"><b>{:.4f}</b><span class="soft">{}</span></div>'
    epoch = 1 + STORED["betas"]["validations"].index(per_token)
    assert tile.format(nats, f"nats per character, epoch {epoch}") in page
    assert tile.format(nats / math.log(2), "bits per character") in page
    assert f"<b>{math.exp(per_token):.2f}</b>" in page
    assert not (tmp_path / REPORT).exists()


def test_the_curves_have_every_step(tmp_path, monkeypatch):
    """Report and picture have each step's loss and each epoch's validation loss."""
    figure = pytest.importorskip("matplotlib.figure", reason="the loss curve is drawn with it")
    drawn = []

    def savefig(self, path, **options):
        drawn.append({line.get_label(): line.get_xydata() for line in self.axes[0].lines})

    monkeypatch.setattr(figure.Figure, "savefig", savefig)
    monkeypatch.setattr(curve, "plots_available", lambda: True)
    monkeypatch.setattr(curve, "CURVE_EVERY", 0.0)
    run = run_of("linear", tmp_path)
    run.train()
    losses, validations = STORED["linear"]["losses"], STORED["linear"]["validations"]
    assert len(drawn) == 3  # after each epoch, and at the end
    points = drawn[-1]["training, each step"]
    np.testing.assert_allclose(points[:, 0], range(1, 11))
    np.testing.assert_allclose(points[:, 1], losses, rtol=RELATIVE)
    points = drawn[-1]["validation"]
    np.testing.assert_allclose(points, list(zip([5, 10], validations, strict=True)), rtol=RELATIVE)

    card = run.report.render(run.state).split("<h3>Loss (nats per token)</h3>")[1]
    chart = card.split("</svg>")[0]
    lines = [part.split('"')[0] for part in chart.split('<path d="M')[1:]]
    assert [line.count("L") for line in lines] == [9, 1, 9]  # smoothed, validation, each step
    heights = [float(point.split()[1]) for point in lines[2].split("L")]
    assert np.corrcoef(heights, losses)[0, 1] < -0.999  # in an SVG y grows downwards
