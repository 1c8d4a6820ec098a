"""If something fails during a run, no step that was made is lost."""

import argparse
import os
import signal
import sys

import pytest

from minigrad import Generator
from tests.tinyalpaca.runs import (
    assert_same_weights,
    resume,
    train,
    workers_are_processes,
    write_text,
)
from tinyalpaca import cli, console
from tinyalpaca.config import ConfigError, ModelConfig
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.parameter_names import parameter_shapes
from tinyalpaca.runs import RunFolder
from tinyalpaca.training import memory_need
from tinyalpaca.training.hooks import curve, tensorboard
from tinyalpaca.training.hooks.report import Report
from tinyalpaca.training.loss import Loss
from tinyalpaca.training.memory_need import check_memory, count_parameters
from tinyalpaca.training.stopping import TrainingStopped
from tinyalpaca.training.task import Task

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


def failing_at(monkeypatch, step, act):
    """Call `act()` in the loss of a step (from 0), in the process that computes it."""
    real = Loss.training

    def loss(self, part, key):
        if key // 2**20 == step:
            act()
        return real(self, part, key)

    monkeypatch.setattr(Loss, "training", loss)


def no_memory():
    raise MemoryError("Unable to allocate 9.9 TiB")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=linux)])
def test_memory_that_runs_out_costs_no_step(tmp_path, monkeypatch, workers):
    text = write_text(tmp_path)
    train(tmp_path / "whole", text)
    with monkeypatch.context() as patch:
        failing_at(patch, 4, no_memory)
        with pytest.raises(TrainingStopped) as error:
            train(tmp_path / "run", text, workers=workers)
    message = str(error.value)
    assert "out of memory: Unable to allocate 9.9 TiB" in message and "Traceback" not in message
    assert RunFolder(tmp_path / "run").latest().name == "step-00000004"
    assert "weights of step 4 are in" in message
    resume(tmp_path / "run")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


@workers_are_processes
def test_a_worker_that_is_killed_costs_no_step(tmp_path, monkeypatch):
    text, caller = write_text(tmp_path), os.getpid()
    train(tmp_path / "whole", text)

    def die():
        if os.getpid() != caller:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        for step in range(3, 30):  # at first the other worker may be too late to get a lane
            failing_at(patch, step, die)
        with pytest.raises(TrainingStopped, match="was killed by signal 9") as error:
            train(tmp_path / "run", text, workers=2, micro_batch_size=1)
    latest = RunFolder(tmp_path / "run").latest().name
    assert latest >= "step-00000003" and str(int(latest[5:])) in str(error.value)
    whole = train(tmp_path / "ones", text, micro_batch_size=1)
    assert resume(tmp_path / "run").state.step == whole.state.step
    assert_same_weights(tmp_path / "run", tmp_path / "ones")


def test_what_fails_in_a_validation_costs_no_step(tmp_path, monkeypatch):
    text = write_text(tmp_path)
    train(tmp_path / "whole", text)
    with monkeypatch.context() as patch:
        patch.setattr(Task, "validate", lambda self, *_: no_memory())
        with pytest.raises(TrainingStopped, match="out of memory"):
            train(tmp_path / "run", text)
    assert RunFolder(tmp_path / "run").latest().name > "step-00000000"
    resume(tmp_path / "run")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_pictures_and_reports_that_fail_stop_nothing(tmp_path, monkeypatch, capsys):
    def fail(*arguments, **settings):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(curve, "plots_available", lambda: True)
    monkeypatch.setattr(curve, "CURVE_EVERY", 0.0)
    monkeypatch.setattr(curve, "save_loss_curve", fail)
    monkeypatch.setattr(Report, "render", fail)
    run = train(tmp_path / "run", write_text(tmp_path))
    assert run.state.step == run.task.total_steps
    error = capsys.readouterr().err
    assert error.count("loss.png could not be written (RuntimeError: no fonts)") == 3
    assert error.count("report.html could not be written") == 1


def test_events_that_fail_are_given_up(tmp_path, monkeypatch, capsys):
    class Broken:
        def __init__(self, folder, step):
            pass

        def write(self, record):
            raise OSError("no space for events")

        def close(self):
            raise OSError("nor to close them")

    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    monkeypatch.setattr(tensorboard, "Events", Broken)
    run = train(tmp_path / "run", write_text(tmp_path), tensorboard=True)
    assert run.state.step == run.task.total_steps
    assert capsys.readouterr().err.count("no TensorBoard events from now on") == 1


def test_an_epoch_is_saved_before_it_is_printed(tmp_path, monkeypatch):
    saved = []

    def say(line=""):
        if line.startswith("Epoch ["):
            saved.append(RunFolder(tmp_path / "run").latest().name)

    monkeypatch.setattr(console, "say", say)
    run = train(tmp_path / "run", write_text(tmp_path), quiet=False)
    assert saved == [f"step-{record['step']:08d}" for record in run.state.records]


def test_no_memory_is_one_line_wherever_it_happens(capsys):
    assert cli.guarded(lambda args: no_memory(), argparse.Namespace()) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory (Unable to allocate") and error.count("\n") == 1


@pytest.mark.parametrize("tie_weights", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_parameters_are_counted_without_making_them(tie_weights, layers):
    config = ModelConfig(
        vocab_size=7, d_model=6, d_ff=10, num_heads=2, num_layers=layers, tie_weights=tie_weights
    )
    assert count_parameters(config) == TinyAlpaca(config, Generator(0)).num_parameters()
    assert len(list(parameter_shapes(config))) > 4


def test_what_fits_and_what_does_not(monkeypatch):
    config = ModelConfig(vocab_size=512)
    monkeypatch.setattr(memory_need, "memory_of_machine", lambda: 11 * 4 * 307_456 + 10**6)
    check_memory(config)
    monkeypatch.setattr(memory_need, "memory_of_machine", lambda: 10**6)
    with pytest.raises(ConfigError, match=r"this model has .* parameters; .* machine has 0\.0 GB"):
        check_memory(config)
    monkeypatch.setattr(memory_need, "memory_of_machine", lambda: None)
    check_memory(config)  # the free memory is unknown
