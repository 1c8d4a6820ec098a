"""One run in many processes has the numbers of one process, and no rank waits for ever."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from minigrad.parallel import mpi
from tests.mpirun import ROOT, mpirun
from tests.tinyalpaca import distributed_program as program
from tests.tinyalpaca.runs import WITHOUT_PICTURES, write_text
from tinyalpaca import console
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.runs import RunFolder
from tinyalpaca.training.together import (
    ElsewhereFolder,
    StoppingTogether,
    check_batches,
    refuse_others,
    unequal_shares,
)

PROGRAM = str(Path(program.__file__))
FOREVER = {"epochs": 1000, "max_steps": 100000}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def start(size, folder, text, *, cleanup=True, **settings):
    """Run `size` ranks with these settings; returns the finished command."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings.json"
    content = {"data": str(text), "out": str(folder / "run"), "distributed": True, **settings}
    file.write_text(json.dumps(content), encoding="utf-8")
    return mpirun(size, [PROGRAM, str(file)], cleanup=cleanup, PYTHONPATH=WITHOUT_PICTURES)


def alone(folder, text, **settings):
    program.train({"data": str(text), "out": str(folder / "run"), **settings})


def numbers(folder):
    """The losses and gradient norms of all steps, and all validation losses."""
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    steps = [(r["step"], r["loss"], r["grad_norm"]) for r in records if r["kind"] == "step"]
    others = [(r["step"], r["val_loss"]) for r in records if r["kind"] != "step"]
    return np.array(steps), np.array(others)


def assert_same_numbers(ours, other, rtol, steps):
    (made, scores), (expected, expected_scores) = numbers(ours), numbers(other)
    assert len(made) == steps
    np.testing.assert_allclose(made[:, :2], expected[:, :2], rtol=rtol)
    np.testing.assert_allclose(scores, expected_scores, rtol=rtol)
    # Near a minimum a gradient is a small difference of large terms, with their rounding errors.
    np.testing.assert_allclose(made[:, 2], expected[:, 2], rtol=10 * rtol)


EVERYTHING = {"model": {"dropout": 0.1}, "accumulate": 2, "ema": 0.9, "eval_every": 7}
LONG = {"epochs": 100, "max_steps": 30, "batch_size": 12, "micro_batch_size": 2}
MUON = {"optimizer": "muon"}
CASES = [
    pytest.param(2, {**EVERYTHING, "workers": 2}, 1e-6, id="everything"),
    pytest.param(
        3, {"double": True, "optimizer": "muon", "shard_optimizer": True}, 1e-12, id="sharded"
    ),
    *(
        pytest.param(size, {**more, **optimizer}, rtol, marks=pytest.mark.slow)
        for size, more, optimizer, rtol in (
            (2, {**EVERYTHING, "double": True, "max_steps": 40}, MUON, 1e-12),
            (3, {**EVERYTHING, "max_steps": 40}, {}, 1e-6),
            (4, {**EVERYTHING, "double": True, "max_steps": 40}, {}, 1e-12),
            (2, {"shard_optimizer": True, "preflight": True, "max_steps": 40}, {}, 1e-6),
            (4, {"shard_optimizer": True, "preflight": True, "max_steps": 40}, MUON, 1e-6),
            (3, {"double": True, "shard_optimizer": True, "windows": "random"}, {}, 1e-12),
        )
    ),
]


@pytest.mark.parametrize(("size", "settings", "rtol"), CASES)
def test_steps_are_those_of_one_process(tmp_path, text, size, settings, rtol):
    settings = {**LONG, **settings}
    done = start(size, tmp_path / "ranks", text, **settings)
    assert done.returncode == 0, done.stderr
    alone(tmp_path / "alone", text, **settings)
    assert_same_numbers(tmp_path / "ranks", tmp_path / "alone", rtol, settings["max_steps"])


def test_a_signal_to_one_rank_saves_and_others_go_on(tmp_path, text):
    """All stop after the same step; then another number of ranks resumes, then one process."""
    settings = {**LONG, "max_steps": 50, "shard_optimizer": True, "happens": ["SIGTERM", 1, 23]}
    done = start(2, tmp_path / "ranks", text, **settings)
    assert done.returncode == 128 + signal.SIGTERM
    assert "(SIGTERM, rank 1). Everything is saved" in done.stdout
    saved = RunFolder(tmp_path / "ranks" / "run").latest()
    assert saved is not None and saved.name == "step-00000024"
    settings |= {"happens": ["SIGINT", 2, 40], "resume": True}
    done = start(3, tmp_path / "ranks", text, **settings)
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    assert "Stopped at step 41 of 50 (Ctrl-C, rank 2)" in done.stdout
    alone(tmp_path / "ranks", text, **{**settings, "happens": None})
    alone(tmp_path / "alone", text, **{**LONG, "max_steps": 50})
    assert_same_numbers(tmp_path / "ranks", tmp_path / "alone", 1e-6, 50)


DIFFERENCES = [
    ({"seed": 1}, "--seed: 0 on rank 0"),
    pytest.param({"validation_fraction": 0.2}, "text: ", marks=pytest.mark.slow),
    pytest.param({"micro_batch_size": 1}, "--micro-batch-size: 4 on", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("differs", "told"), DIFFERENCES)
def test_ranks_that_would_train_something_else_refuse(tmp_path, text, differs, told):
    done = start(2, tmp_path, text, differs=differs)
    assert done.returncode == 1
    assert "error: the ranks do not train the same thing" in done.stderr
    assert told in done.stderr and "on rank 1 (process" in done.stderr
    assert done.stderr.count("error:") == 1
    assert not (tmp_path / "run" / "checkpoints" / "latest").exists()


def test_a_full_disk_at_rank_0_stops_all(tmp_path, text):
    happens = {"happens": ["full disk", 0, 5], "save_every": 3, **FOREVER}
    done = start(2, tmp_path, text, cleanup=False, **happens)
    assert done.returncode == 1
    assert "step 6 could not be saved: [Errno 28] No space left on device" in done.stderr
    assert "The last good checkpoint is" in done.stderr and done.stderr.count("error:") == 1
    saved = RunFolder(tmp_path / "run").latest()
    assert saved is not None and saved.name == "step-00000003"


def test_weights_that_differ_are_not_saved(tmp_path, text):
    """Weights are compared before each checkpoint, so the last checkpoint is good."""
    happens = {"happens": ["diverges", 1, 5], "save_every": 4, "batch_size": 6, **FOREVER}
    done = start(3, tmp_path, text, **happens)
    assert done.returncode == 1 and done.stderr.count("error:") == 1
    assert "error: the parameters of rank 1 differ from those of all others" in done.stderr
    saved = RunFolder(tmp_path / "run").latest()
    assert saved is not None and saved.name == "step-00000004"


DEATHS = [
    ("SIGKILL", 1, "has died"),
    pytest.param("SIGSTOP", 2, "has not come within 5 seconds", marks=pytest.mark.slow),
    pytest.param("SIGKILL", 2, "has died", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("what", "rank", "told"), DEATHS)
def test_the_others_save_the_last_step_and_name_the_rank(tmp_path, text, what, rank, told):
    settings = {"happens": [what, rank, 9], "batch_size": 6, **FOREVER}
    settings |= {"rank_timeout": 5.0} if what == "SIGSTOP" else {}
    for attempt in range(3):  # on a busy machine MPICH's launcher sometimes ends all ranks itself
        folder = tmp_path / str(attempt)
        done = start(3, folder, text, cleanup=False, **settings)
        if "error:" in done.stderr:
            break
    assert done.returncode != 0
    saved = RunFolder(folder / "run").latest()
    assert saved is not None and saved.name == "step-00000009", done.stdout + done.stderr
    told_by = [line for line in done.stderr.splitlines() if told in line]
    assert told_by and f"rank {rank} (process" in told_by[0]


@pytest.mark.slow
def test_what_a_kill_at_any_moment_leaves_can_be_gone_on_with(tmp_path, text):
    """At twenty moments, with the launcher's clean-up: the next start resumes from a good step."""
    settings = {**LONG, "max_steps": 110, "save_every": 3, "distributed": True}
    for moment in range(20):
        resume = (tmp_path / "ranks" / "run" / "checkpoints" / "latest").exists()
        happens = ["SIGKILL", moment % 2, 5 * moment + 4]
        done = start(2, tmp_path / "ranks", text, **settings, happens=happens, resume=resume)
        assert done.returncode == 9, done.stderr
    done = start(2, tmp_path / "ranks", text, **settings, resume=True)
    assert done.returncode == 0, done.stderr
    alone(tmp_path / "alone", text, **settings | {"distributed": False})
    assert_same_numbers(tmp_path / "ranks", tmp_path / "alone", 1e-6, 110)


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_left_out_by_all(tmp_path, text):
    """With a learning rate that is far too high, both ways end the same."""
    settings = {"learning_rate": 1e20, "batch_size": 6, "grad_clip": 0.0, **FOREVER}
    done = start(3, tmp_path, text, **settings)
    assert done.returncode == 1
    assert "The batch is in" in done.stderr and done.stderr.count("error:") == 1


def test_one_process_is_the_same_bit_for_bit(tmp_path, text):
    alone(tmp_path / "with", text, distributed=True, max_steps=5)
    alone(tmp_path / "without", text, max_steps=5)
    assert_same_numbers(tmp_path / "with", tmp_path / "without", 0, 5)


def test_batches_that_cannot_be_shared_are_refused():
    check_batches(TrainConfig(batch_size=32), 4)
    with pytest.raises(ConfigError, match=r"3 ranks cannot share a batch of 32 .* 30 or 33"):
        check_batches(TrainConfig(batch_size=32), 3)
    with pytest.raises(ConfigError, match="give --batch-size 8, or"):
        check_batches(TrainConfig(batch_size=4), 8)
    with pytest.raises(ConfigError, match="by a clock"):
        check_batches(TrainConfig(measure_micro_batch=True), 2)
    with pytest.raises(ConfigError, match="standard input reaches one rank"):
        check_batches(TrainConfig(data="-"), 2)


def test_unequal_shares_are_told():
    class Four:
        size = 4

    assert unequal_shares(32, 8, Four()) is None
    told = unequal_shares(32, 16, Four())
    assert told.startswith("4 ranks share 2 micro-batches") and "--micro-batch-size 8 " in told


def test_a_wish_to_stop_counts_when_all_know_it():
    stopping = StoppingTogether()
    stopping.signal = signal.SIGINT
    assert stopping.wish() == signal.SIGINT and not stopping.wanted
    stopping.hear(np.array([0.0, 0.0]))
    assert not stopping.wanted
    stopping.hear(np.array([0.0, 15.0, 2.0]))
    assert stopping.wanted and stopping.reason == "SIGTERM, rank 1" and stopping.exit_status == 143
    after = StoppingTogether()
    after.signal, after.alone = signal.SIGINT, True
    assert after.wanted
    late = StoppingTogether(max_minutes=1e-9)
    assert late.wish() == -1
    late.hear(np.array([0.0, -1.0]))
    assert late.wanted and late.exit_status == 0 and "have passed" in late.reason


def test_another_ranks_folder_leaves_nothing_behind():
    folder = ElsewhereFolder()
    with folder.open() as opened, opened.open():
        assert folder.path.is_dir()
        assert folder.latest() is None and folder.set_earlier_aside() is None
    assert not folder.path.exists()


def test_nothing_is_told_while_another_process_tells_it(capsys):
    with console.muted():
        console.say("a")
        console.warn("b")
    console.say("c")
    assert capsys.readouterr() == ("c\n", "")


def test_a_launcher_without_the_flag_is_told(monkeypatch, capsys):
    from tinyalpaca.commands import train_command

    monkeypatch.setattr(train_command.mpi, "place", lambda: mpi.Place(0, 4, launcher="MPICH"))
    train_command.warn_of_launcher(TrainConfig())
    assert "MPICH has started 4 of these commands" in capsys.readouterr().err
    train_command.warn_of_launcher(TrainConfig(distributed=True))
    assert capsys.readouterr().err == ""


def test_the_command_tells_everything_once(tmp_path, text):
    sizes = "--d-model 8 --d-ff 16 --num-heads 2 --num-layers 1 --max-seq-len 16 --batch-size 8"
    flags = f"{sizes} --num-merges 5 --epochs 1 --max-steps 4 --sample-tokens 5 --preset original"
    words = [str(ROOT / "examples" / "train_shakespeare.py"), *flags.split(), "--distributed"]
    done = mpirun(2, [*words, "--data", str(text), "--out", str(tmp_path / "run")])
    assert done.returncode == 0, done.stderr
    once = (
        "Text: ",
        "2 ranks, each 1 process",
        "Ranks: rank 0 (process ",
        "Pre-flight: ",
        "Sample:",
    )
    assert [done.stdout.count(line) for line in once] == [1] * len(once)
    assert done.stdout.count("Best validation:") == 1 and done.stderr == ""
    refused = mpirun(3, [*words, "--data", str(text), "--out", str(tmp_path / "run")])
    assert refused.returncode == 1
    assert refused.stderr.count("error: 3 ranks cannot share a batch of 8") == 1


def test_other_versions_and_texts_are_named():
    class Two(mpi.Ranks):
        """Two ranks, of which the second has another NumPy and another text."""

        def __init__(self):
            super().__init__(place=mpi.Place())

        def gather(self, thing, doing=""):
            return [thing, {**thing, "version of numpy": "1.0", "text": "other"}]

    with pytest.raises(ConfigError) as refused:
        refuse_others(Two(), TrainConfig(), ModelConfig(), 0, text="one")
    lines = str(refused.value).splitlines()
    assert lines[1:] == [
        "  text: one on rank 0, other on rank 1",
        f"  version of numpy: {np.__version__} on rank 0, 1.0 on rank 1",
    ]
