"""A run that is stopped and resumed is bitwise identical to one that was not."""

import dataclasses
import json
import os
import signal

import pytest

from minigrad.parallel import WorkerError, Workers
from minigrad.storage import FileFormatError
from tests.tinyalpaca.runs import (
    StopAt,
    assert_same_weights,
    final_weights,
    results,
    resume,
    train,
    write_text,
)
from tinyalpaca.config import ConfigError
from tinyalpaca.runs import RunFolder
from tinyalpaca.training import defaults, job, run, task
from tinyalpaca.training.hooks.metrics import Metrics
from tinyalpaca.training.hooks.samples import Samples
from tinyalpaca.training.metrics_file import read_metrics
from tinyalpaca.training.stopping import TrainingStopped

HARD = {  # all settings with a state
    "optimizer": "muon",
    "schedule": "cosine",
    "warmup_steps": 5,
    "windows": "random",
    "decay": "matrices",
    "ema": 0.9,
    "accumulate": 2,
    "epoch_sample_tokens": 5,
}


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


def train_and_stop(monkeypatch, questions, *args, **settings):
    with monkeypatch.context() as patch:
        patch.setattr(job, "Stopping", lambda minutes: StopAt(questions))
        return train(*args, **settings)


@pytest.mark.parametrize(
    ("settings", "every"),
    [
        pytest.param({}, 2, marks=pytest.mark.slow, id="plain"),
        pytest.param(HARD, 1, marks=pytest.mark.slow, id="hard"),
        pytest.param(HARD, 4, id="hard, some places"),
    ],
)
def test_a_stop_at_any_place_changes_nothing(tmp_path, text, monkeypatch, settings, every):
    model = {"dropout": 0.1} if settings else None
    whole = train(tmp_path / "whole", text, model, **settings)
    places = 0
    for questions in range(0, 10_000, every):
        folder = tmp_path / f"stopped-{questions}"
        stopped = train_and_stop(monkeypatch, questions, folder, text, model, **settings)
        if stopped.stopped is None:
            break
        a, b = stopped.state, whole.state
        assert a.step < b.step or len(a.records) < len(b.records)
        resumed = resume(folder)
        assert resumed.stopped is None
        assert results(resumed) == results(whole)
        assert_same_weights(folder, tmp_path / "whole")
        places += 1
    assert places * every >= 16


def test_a_chain_of_stops_changes_nothing_and_the_metrics_have_every_step_once(
    tmp_path, text, monkeypatch
):
    whole = train(tmp_path / "whole", text, **HARD)
    run = train_and_stop(monkeypatch, 4, tmp_path / "chain", text, **HARD)
    report = (tmp_path / "chain/report.html").read_text(encoding="utf-8")
    assert f"stopped at step {run.state.step}<" in report
    while run.stopped is not None:
        with monkeypatch.context() as patch:
            patch.setattr(job, "Stopping", lambda minutes: StopAt(4))
            run = resume(tmp_path / "chain")
        if run.task.validation_is_due(run.state):  # it asks more often than this test allows
            run = resume(tmp_path / "chain")
    assert results(run) == results(whole)
    assert_same_weights(tmp_path / "chain", tmp_path / "whole")
    keys = ("kind", "step", "epoch", "loss", "val_loss", "grad_norm", "update_ratio")
    for record, expected in zip(
        read_metrics(tmp_path / "chain/metrics.jsonl"),
        read_metrics(tmp_path / "whole/metrics.jsonl"),
        strict=True,
    ):
        assert [record.get(k) for k in keys] == [expected.get(k) for k in keys]


def test_the_number_of_workers_may_change_at_resume(tmp_path, text, monkeypatch):
    train(tmp_path / "whole", text)
    train_and_stop(monkeypatch, 5, tmp_path / "stopped", text, workers=2)
    resume(tmp_path / "stopped", workers=3)
    assert_same_weights(tmp_path / "stopped", tmp_path / "whole")


def test_the_size_of_micro_batches_is_kept_at_resume(tmp_path, text, monkeypatch):
    """It is chosen when a run begins; another machine might choose another size."""
    sizes = iter([2, 2, 3])
    monkeypatch.setattr(defaults, "calibrated_micro_batch", lambda *_: next(sizes))
    train(tmp_path / "whole", text, micro_batch_size=0)
    train_and_stop(monkeypatch, 5, tmp_path / "stopped", text, micro_batch_size=0)
    assert resume(tmp_path / "stopped").task.engine.micro_batch_size == 2
    assert_same_weights(tmp_path / "stopped", tmp_path / "whole")


def test_more_epochs_go_on_where_a_finished_run_ended(tmp_path, text):
    longer = train(tmp_path / "longer", text, epochs=3)
    train(tmp_path / "run", text, epochs=2)
    resumed = resume(tmp_path / "run", epochs=3)
    assert results(resumed) == results(longer)
    assert_same_weights(tmp_path / "run", tmp_path / "longer")


def test_resuming_a_finished_run_trains_no_further(tmp_path, text):
    first = train(tmp_path / "run", text)
    before = final_weights(tmp_path / "run")
    again = resume(tmp_path / "run")
    assert again.state.step == first.state.step and results(again) == results(first)
    assert all((before[k] == v).all() for k, v in final_weights(tmp_path / "run").items())


def test_changed_settings_are_all_listed(tmp_path, text):
    train(tmp_path / "run", text, max_steps=2)
    with pytest.raises(ConfigError) as error:
        resume(tmp_path / "run", learning_rate=0.5, batch_size=3, epochs=9)
    message = str(error.value)
    assert "learning_rate: 0.01 before, 0.5 now" in message
    assert "batch_size: 8 before, 3 now" in message
    assert "epochs" not in message and "--out" in message
    with pytest.raises(ConfigError, match="d_model: 8 before, 16 now"):
        job.resume_training(tmp_path / "run", {"d_model": 16}, {})


def test_another_text_is_refused(tmp_path, text):
    train(tmp_path / "run", text, max_steps=2)
    other = tmp_path / "other.txt"
    other.write_text(text.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    with pytest.raises(ValueError, match="another text"):
        resume(tmp_path / "run", data=str(other))
    moved = tmp_path / "moved.txt"
    text.rename(moved)
    assert resume(tmp_path / "run", data=str(moved), max_steps=3).state.step == 3


def test_nothing_to_resume_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no checkpoint to resume from"):
        resume(tmp_path)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, text, capsys):
    whole = train(tmp_path / "run", text, keep=3)
    latest = RunFolder(tmp_path / "run").latest()
    weights = latest / "optimizer.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    resumed = resume(tmp_path / "run")
    assert "does not match its checksum" in capsys.readouterr().err
    assert results(resumed) == results(whole)
    assert RunFolder(tmp_path / "run").latest().name == f"{latest.name}.1"
    for path in RunFolder(tmp_path / "run").all():
        (path / "SHA256SUMS").write_bytes(b"")
    with pytest.raises(FileFormatError, match="are damaged"):
        resume(tmp_path / "run")


def test_one_checkpoint_can_be_resumed_into_a_new_folder_only(tmp_path, text):
    whole = train(tmp_path / "run", text, keep=99, save_every=3)
    step = tmp_path / "run/checkpoints/step-00000003"
    with pytest.raises(ConfigError, match="newer checkpoints"):
        resume(step)
    branch = resume(step, out=str(tmp_path / "branch"))
    assert results(branch) == results(whole)
    assert_same_weights(tmp_path / "branch", tmp_path / "run")
    steps = [r["step"] for r in read_metrics(tmp_path / "branch/metrics.jsonl")]
    assert steps == sorted(steps) and steps[0] == 1


def test_format_and_versions_are_written_and_a_future_format_is_refused(tmp_path, text, capsys):
    train(tmp_path / "run", text, max_steps=2)
    path = RunFolder(tmp_path / "run").latest()
    content = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
    assert content["format"] == 1 and content["versions"]["numpy"]
    assert {"epoch", "step", "sampler", "schedule", "random", "best"} <= content.keys()

    def rewrite(**changes):
        from tinyalpaca.runs.checksums import write_sums

        (path / "trainer.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")
        write_sums(path, [p.name for p in path.iterdir() if p.name != "SHA256SUMS"])

    rewrite(versions={**content["versions"], "numpy": "1.0"})
    resume(tmp_path / "run")
    assert "numpy 1.0 then" in capsys.readouterr().err
    rewrite(format=99)
    with pytest.raises(FileFormatError, match="format 99"):
        resume(tmp_path / "run")


def test_clocks_play_no_part(tmp_path, text, monkeypatch):
    train(tmp_path / "whole", text)
    train_and_stop(monkeypatch, 6, tmp_path / "run", text, save_every=2, keep=9)
    checkpoints = RunFolder(tmp_path / "run").all()
    for age, path in enumerate(checkpoints):  # the newest has the oldest time
        os.utime(path, (10**9 - age * 1000, 10**9 - age * 1000))
    monkeypatch.setattr("time.time", lambda: -1.0)
    resumed = resume(tmp_path / "run")
    assert resumed.stopped is None
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_max_minutes_stops_saves_and_can_go_on(tmp_path, text):
    train(tmp_path / "whole", text)
    run = train(tmp_path / "run", text, max_minutes=1e-6)
    assert run.stopped == "--max-minutes 1e-06 have passed" and run.state.step == 0
    assert run.stopping.exit_status == 0
    resume(tmp_path / "run", max_minutes=0.0)
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("place", ["validation", "save", "sampling"])
def test_sigterm_between_steps(tmp_path, text, monkeypatch, place):
    """In validation, saving and sampling: a save is finished, the others are repeated."""
    settings = {"epoch_sample_tokens": 5}
    whole = train(tmp_path / "whole", text, **settings)
    owner, name = {
        "validation": (task, "evaluate"),
        "save": (run, "write_checkpoint"),
        "sampling": (Samples, "text"),
    }[place]
    original, calls = getattr(owner, name), 0

    def interrupted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        stopped = train(tmp_path / "run", text, **settings)
    assert stopped.stopped == "SIGTERM"
    assert len(stopped.state.records) == 1
    assert stopped.task.validation_is_due(stopped.state) == (place != "save")
    assert results(resume(tmp_path / "run")) == results(whole)
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_workers_that_die_within_an_update_cost_steps_but_no_exactness(tmp_path, text, monkeypatch):
    """A signal to the process group may end a worker that has updated half of the weights."""
    train(tmp_path / "whole", text)
    original, calls = Workers.update, 0

    def torn(self, *args):
        nonlocal calls
        calls += 1
        original(self, *args)
        if calls == 6:
            self.flat.data[: self.flat.data.size // 2] = 7.0
            os.kill(os.getpid(), signal.SIGTERM)
            raise WorkerError("worker process 1 was killed by signal 15")

    with monkeypatch.context() as patch:
        patch.setattr(Workers, "update", torn)
        stopped = train(tmp_path / "run", text, save_every=4)
    assert stopped.stopped == "SIGTERM" and stopped.state.step == 4
    assert RunFolder(tmp_path / "run").latest().name == "step-00000004"
    resume(tmp_path / "run")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_worker_that_dies_ends_the_run_with_a_way_to_go_on(tmp_path, text, monkeypatch):
    def die(self, *args, **kwargs):
        raise WorkerError("worker process 1 was killed by signal 9")

    monkeypatch.setattr(Workers, "gradients", die)
    with pytest.raises(TrainingStopped, match=r"signal 9\n.*step-00000000\. --resume continues"):
        train(tmp_path / "run", text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_step_and_are_handed_back(tmp_path, text, monkeypatch, capsys, number):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    original = Metrics.on_step

    def interrupt(self, state, made):
        original(self, state, made)
        if state.step == 3:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "on_step", interrupt)
        run = train(tmp_path / "run", text)
    assert run.state.step == 3 and run.stopping.exit_status == 128 + number
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    out = capsys.readouterr().out
    assert "Stopped at step 3" in out and f"--resume {tmp_path / 'run'}" in out
    train(tmp_path / "whole", text)
    resume(tmp_path / "run")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_settings_that_may_change_exist():
    from tinyalpaca.config import TrainConfig
    from tinyalpaca.training.resuming import MAY_CHANGE

    assert {f.name for f in dataclasses.fields(TrainConfig)} >= MAY_CHANGE
