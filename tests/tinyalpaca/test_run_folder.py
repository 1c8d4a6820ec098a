"""The folder of a run: pointers, old checkpoints, one writer, full disks."""

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.at_once import at_once
from tests.stress.resume import stress
from tests.tinyalpaca.runs import (
    WITHOUT_PICTURES,
    assert_same_weights,
    results,
    resume,
    train,
    write_text,
)
from tinyalpaca.runs import FolderInUse, RunFolder
from tinyalpaca.runs.checksums import check_sums
from tinyalpaca.runs.layout import REQUIRED
from tinyalpaca.training.hooks import checkpoints
from tinyalpaca.training.hooks.metrics import Metrics
from tinyalpaca.training.stopping import TrainingStopped
from tinyalpaca.training.task import Task

ROOT = Path(__file__).parents[2]


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost(tmp_path, capsys):
    sentence = stress(kills=6, seed=11, workers=1, folder=tmp_path)
    assert sentence.startswith("6 kills")


def resume_and_die_at(flush, folder):
    """Resume until the n-th flush to disk, at which the process ends with status 99."""
    left, fsync = flush, os.fsync

    def flush_or_die(descriptor):
        nonlocal left
        left -= 1
        if left == 0:
            os._exit(99)
        fsync(descriptor)

    os.fsync = flush_or_die
    try:
        resume(folder, max_steps=3, keep=1)
    finally:
        os._exit(0)


@pytest.mark.slow
def test_a_kill_at_any_flush_of_a_save_leaves_good_checkpoints(tmp_path, text):
    """For every n, the process ends at the n-th flush to disk, without any clean-up."""
    train(tmp_path / "start", text, max_steps=2)
    ended = 0
    for flush in range(1, 200, 3):
        folder = shutil.copytree(tmp_path / "start", tmp_path / f"run-{flush}")
        pid = os.fork()
        if pid == 0:
            resume_and_die_at(flush, folder)
        _, status = os.waitpid(pid, 0)
        run = RunFolder(folder)
        for path in (run.latest(), run.best()):
            check_sums(path, REQUIRED)
        if os.WEXITSTATUS(status) == 0:
            break
        ended += 1
        if flush % 4 == 0:
            assert resume(folder, max_steps=3).state.step == 3
        shutil.rmtree(folder)
    assert ended > 10


def test_the_newest_and_the_best_are_kept(tmp_path, text):
    state = train(tmp_path / "run", text, save_every=2, keep=3).state
    names = [path.name for path in RunFolder(tmp_path / "run").all()]
    newest = [f"step-{state.step - back:08d}" for back in (4, 2, 0)]
    best = state.records[state.best["record"]]["step"]
    assert names == sorted({*newest, f"step-{best:08d}"})


def test_best_stays_with_the_lowest_validation_loss(tmp_path, text, monkeypatch):
    original, scores = Task.validate, iter([1.0, 0.5, 0.75, 0.625])

    def validate(self, *arguments):
        score = original(self, *arguments)
        return score._replace(nats=next(scores) * score.tokens)

    monkeypatch.setattr(Task, "validate", validate)
    records = train(tmp_path / "run", text, epochs=4, keep=1).state.records
    run = RunFolder(tmp_path / "run")
    assert run.best().name == f"step-{records[1]['step']:08d}"
    assert run.latest().name == f"step-{records[3]['step']:08d}"
    assert [r["val_loss"] for r in records] == [1.0, 0.5, 0.75, 0.625]
    published = (tmp_path / "run/model.safetensors").read_bytes()
    assert published == (run.best() / "model.safetensors").read_bytes()


def test_an_earlier_run_is_set_aside_and_strange_files_are_left_alone(tmp_path, text):
    folder = tmp_path / "run"
    first = train(folder, text, max_steps=2)
    (folder / "notes.txt").write_text("mine")
    train(folder, text, max_steps=3)
    train(folder, text, max_steps=4)
    assert (folder / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in (folder / "earlier").iterdir()) == ["1", "2"]
    assert RunFolder(folder / "earlier/1").latest().name == "step-00000002"
    again = resume(folder / "earlier/1")
    assert results(again) == results(first)
    assert RunFolder(folder).latest().name == "step-00000004"


def test_two_runs_in_one_folder_the_second_says_who_is_there(tmp_path, text):
    code = (
        "import sys, time\n"
        "from tinyalpaca.runs.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).open():\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(FolderInUse) as error:
            train(tmp_path / "run", text)
        assert f"process {holder.pid}" in str(error.value) and "--out" in str(error.value)
        holder.kill()
    train(tmp_path / "run", text, max_steps=1)  # the lock ended with its process


def test_two_runs_of_one_process(tmp_path, text):
    with RunFolder(tmp_path / "run").open(), pytest.raises(FolderInUse, match=str(os.getpid())):
        train(tmp_path / "run", text)


def test_one_of_several_threads_gets_a_folder(tmp_path):
    def work(number):
        got = 0
        for turn, tried in enumerate(rounds):
            try:
                with RunFolder(tmp_path / f"run {turn}").open():
                    got += 1
                    tried.wait(30)
            except FolderInUse:
                tried.wait(30)
        return got

    rounds = [threading.Barrier(4) for _ in range(20)]
    assert sum(at_once(work)) == len(rounds)


def test_a_disk_that_fills_up_stops_the_run_and_harms_nothing(tmp_path, text):
    whole = train(tmp_path / "whole", text)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    original = Metrics.on_step

    def fill_up(self, state, made):
        original(self, state, made)
        if state.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "on_step", fill_up)
        try:
            with pytest.raises(TrainingStopped) as error:
                train(tmp_path / "run", text, save_every=2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = str(error.value)
    assert "step 4 could not be saved" in message and "step-00000002" in message
    run = RunFolder(tmp_path / "run")
    check_sums(run.latest(), REQUIRED)
    assert [p.name for p in run.checkpoints.glob(".*")] == []
    assert results(resume(tmp_path / "run")) == results(whole)
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


@pytest.fixture
def ordinary_user():
    """Run with the rights of an ordinary user, because root may write anywhere."""
    folder = Path(tempfile.mkdtemp())
    os.chmod(folder, 0o777)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        os.chmod(folder, 0o777)
        for path in folder.rglob("*"):
            if path.is_dir():
                os.chmod(path, 0o777)
        shutil.rmtree(folder)


def test_a_folder_that_becomes_read_only_stops_the_run_and_harms_nothing(ordinary_user):
    text = write_text(ordinary_user)
    original = Metrics.on_step

    def close_the_folder(self, state, made):
        original(self, state, made)
        if state.step == 3:
            os.chmod(self.folder / "checkpoints", 0o555)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "on_step", close_the_folder)
        with pytest.raises(TrainingStopped) as error:
            train(ordinary_user / "run", text, save_every=2)
    message = str(error.value)
    assert "step 4 could not be saved" in message and "Permission denied" in message
    assert "step-00000002" in message
    check_sums(RunFolder(ordinary_user / "run").latest(), REQUIRED)
    os.chmod(ordinary_user / "run/checkpoints", 0o777)
    assert resume(ordinary_user / "run").stopped is None


def test_a_read_only_folder_is_found_before_training(ordinary_user):
    text = write_text(ordinary_user)
    (ordinary_user / "closed").mkdir(mode=0o555)
    with pytest.raises(OSError, match="cannot be written"):
        train(ordinary_user / "closed/run", text)


def start_command(folder):
    """Start the command with two workers, in its own process group."""
    text = folder.parent / "long.txt"
    text.write_text("the king and the queen speak no more\n" * 3000, encoding="utf-8")
    flags = {"d-model": 8, "d-ff": 16, "num-heads": 2, "num-layers": 1, "max-seq-len": 16}
    flags |= {"seq-len": 17, "num-merges": 5, "workers": 2, "save-every": 20}
    argv = [f"--{name}={value}" for name, value in flags.items()]
    argv += ["--no-preflight", "--epochs=100000", f"--data={text}", f"--out={folder}"]
    return subprocess.Popen(
        [sys.executable, "examples/train_shakespeare.py", *argv],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": WITHOUT_PICTURES, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def command(tmp_path):
    """The command, training in `tmp_path / "run"`; it is ended after the test if it still runs."""
    process = start_command(tmp_path / "run")
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def nobody_left(group):
    """Whether no process of the group is alive."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("whole_group", [False, True], ids=["process", "group"])
def test_sigterm_ends_the_command_and_its_workers_with_everything_saved(
    tmp_path, command, whole_group
):
    folder, process = tmp_path / "run", command
    wait_until(lambda: (RunFolder(folder).latest() or folder).name > "step-00000000")
    if whole_group:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert f"--resume {folder}" in out and "SIGTERM" in out
    assert "Traceback" not in err
    wait_until(lambda: nobody_left(process.pid))
    latest = RunFolder(folder).latest()
    check_sums(latest, REQUIRED)
    step = json.loads((latest / "trainer.json").read_text(encoding="utf-8"))["step"]
    assert f"Stopped at step {step:,} " in out


@pytest.mark.slow
def test_no_worker_outlives_a_command_that_is_killed(tmp_path, command):
    folder, process = tmp_path / "run", command
    wait_until(lambda: (RunFolder(folder).latest() or folder).name > "step-00000000")
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: nobody_left(process.pid), 20)


def test_a_checkpoint_is_written_when_so_many_minutes_have_gone_by(tmp_path, text, monkeypatch):
    """With a clock that advances by a minute at each call, a checkpoint is due at every step."""
    minutes = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 60.0 * next(minutes))
    monkeypatch.setattr(checkpoints, "time", clock)
    train(tmp_path / "often", text, save_minutes=1.0, keep=99)
    often = len(list((tmp_path / "often" / "checkpoints").glob("step-*")))
    train(tmp_path / "seldom", text, save_minutes=0, keep=99)
    seldom = len(list((tmp_path / "seldom" / "checkpoints").glob("step-*")))
    assert seldom == 3  # the start and the epochs' ends
    assert often > seldom


class Killed(BaseException):
    """An exception that no code handles, like a kill."""


@pytest.mark.parametrize("moment", ["metrics", "checkpoint"])
def test_a_run_that_was_killed_at_its_beginning_does_not_lock_its_folder(
    tmp_path, text, monkeypatch, moment
):
    def killed(*arguments):
        if moment == "metrics":
            (out / "metrics.jsonl").touch()
        raise Killed

    out, whole = tmp_path / "run", tmp_path / "whole"
    with monkeypatch.context() as patch:
        if moment == "metrics":
            patch.setattr(Metrics, "on_start", killed)
        else:
            patch.setattr("tinyalpaca.runs.run_folder.write_sums", killed)
            patch.setattr("tinyalpaca.runs.run_folder._remove", lambda folder: None)
        with pytest.raises(Killed):
            train(out, text, max_steps=2)
    assert (moment == "checkpoint") == (not RunFolder(out).all())
    assert len(os.listdir(out / "checkpoints")) == 1 + (moment == "metrics")
    train(out, text, max_steps=2)
    train(whole, text, max_steps=2)
    assert_same_weights(out, whole)
