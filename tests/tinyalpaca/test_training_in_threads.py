"""Two trainings in two threads of one process, and training in a process that is a daemon."""

import multiprocessing
import os
import threading

import pytest

from tests.tinyalpaca.runs import GLOBAL_LOCK, assert_same_weights, results, train, write_text

# Wide enough for BLAS to use several threads for a matmul, if it were allowed to.
WIDE = {"d_model": 128, "d_ff": 256, "max_seq_len": 32}
SETTINGS = {"epochs": 1, "max_steps": 6, "seq_len": 33, "accumulate": 2, "micro_batch_size": 8}
VARIANTS = {
    "adamw": {},
    "muon": {"optimizer": "muon"},
    "two workers": {"workers": 2, "micro_batch_size": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_trainings_in_two_threads_give_what_each_gives_alone(tmp_path, variant):
    text, settings = write_text(tmp_path), {**SETTINGS, **VARIANTS[variant]}
    seeds = (1, 2)
    alone = {
        seed: train(tmp_path / f"alone {seed}", text, WIDE, seed=seed, **settings) for seed in seeds
    }
    together = {}

    def run(seed):
        together[seed] = train(tmp_path / f"together {seed}", text, WIDE, seed=seed, **settings)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in seeds:
        assert_same_weights(tmp_path / f"alone {seed}", tmp_path / f"together {seed}")
        assert results(alone[seed]) == results(together[seed])


def _in_a_daemon(folder, text, pipe):
    run = train(folder, text, workers=2)
    pipe.send((run.task.engine.backend, multiprocessing.current_process().daemon))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_daemonic_process_trains_with_workers_of_its_own(tmp_path):
    """`multiprocessing` allows it no children: starting one would raise an AssertionError."""
    text = write_text(tmp_path)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    daemon = context.Process(
        target=_in_a_daemon, args=(tmp_path / "run", text, theirs), daemon=True
    )
    daemon.start()
    theirs.close()
    assert ours.recv() == ("processes" if GLOBAL_LOCK else "threads", True)
    daemon.join(30)
    assert daemon.exitcode == 0
    train(tmp_path / "here", text, workers=1)
    assert_same_weights(tmp_path / "run", tmp_path / "here")
