"""Workers are processes or threads, as chosen in the command; the output says which."""

import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tqdm import tqdm

from minigrad.parallel import choose_backend, why_not_processes
from tests.tinyalpaca.runs import (
    WITHOUT_PICTURES,
    train,
    workers_are_processes,
    write_text,
)
from tinyalpaca.console import Bar
from tinyalpaca.tokenizer import BPETokenizer

ROOT = Path(__file__).parents[2]
SMALL = shlex.split(
    "--num-merges 5 --batch-size 8 --seq-len 17 --d-model 8 --d-ff 16 --num-heads 2 --num-layers 1 "
    "--max-seq-len 16 --workers 2 --max-steps 2 --sample-tokens 0 --epoch-sample-tokens 0"
)


def command(*argv):
    return subprocess.run(
        [sys.executable, *argv],
        env={**os.environ, "PYTHONPATH": WITHOUT_PICTURES},
        capture_output=True,
        text=True,
        timeout=120,
    )


@workers_are_processes
@pytest.mark.parametrize(
    "start", [["-m", "tinyalpaca", "train"], [str(ROOT / "examples" / "train_shakespeare.py")]]
)
def test_a_fresh_run_trains_on_processes_and_says_so(tmp_path, start):
    """The tokenizer's progress bar runs before: it must leave no thread that prevents a fork."""
    text = write_text(tmp_path)
    done = command(*start, "--data", str(text), "--out", str(tmp_path / "run"), *SMALL)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Model: .* on cpu \(2 processes, 4 sequence\(s\) at a time\)", done.stdout)
    assert "instead of processes" not in done.stderr


def test_our_bars_start_no_thread_and_leave_other_peoples_settings():
    before, interval = threading.active_count(), tqdm.monitor_interval
    with Bar(total=3) as bar:
        bar.update()
    BPETokenizer.train("to be or not to be", num_merges=3)
    assert threading.active_count() == before
    assert tqdm.monitor_interval == interval


@workers_are_processes
def test_the_monitor_of_somebody_elses_bar_does_not_matter():
    program = """
        import threading
        from tqdm import tqdm
        bar = tqdm(total=3)
        assert threading.active_count() == 2
        from minigrad.parallel import choose_backend, why_not_processes
        print(choose_backend(), why_not_processes())
    """
    done = command("-c", "\n".join(line.strip() for line in program.splitlines()))
    assert done.stdout == "processes None\n", done.stderr


@workers_are_processes
def test_another_thread_means_threads_with_a_reason_and_the_same_numbers(tmp_path, capsys):
    text, end = write_text(tmp_path), threading.Event()
    alone = train(tmp_path / "alone", text, workers=2)
    thread = threading.Thread(target=end.wait, name="somebody")
    thread.start()
    try:
        assert choose_backend() == "threads"
        assert "somebody" in why_not_processes()
        beside = train(tmp_path / "beside", text, workers=2)
    finally:
        end.set()
        thread.join()
    assert (alone.task.engine.backend, beside.task.engine.backend) == ("processes", "threads")
    assert alone.records[-1]["train_loss"] == beside.records[-1]["train_loss"]
    error = capsys.readouterr().err
    assert error.count("threads instead of processes") == 1 and "somebody" in error


def test_a_single_worker_needs_no_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    train(tmp_path / "run", write_text(tmp_path), workers=1)
    assert "instead of processes" not in capsys.readouterr().err
