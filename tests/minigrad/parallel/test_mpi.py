"""Many processes compute the same as one, and none of them waits for ever."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.parallel import WorkerError, mpi
from minigrad.parallel.mpi import ranks as ranks_module
from minigrad.parallel.mpi.alive import Process
from minigrad.parallel.mpi.sharding import cut
from tests.minigrad.parallel import mpi_program as program
from tests.mpirun import answers, mpirun

PROGRAM = str(Path(program.__file__))
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def assert_close(ours, alone, dtype):
    """Results are equal up to rounding errors of sums, which accumulate over training steps."""
    np.testing.assert_allclose(ours["steps"], alone["steps"], rtol=TOLERANCE[dtype])
    assert ours["score"] == pytest.approx(alone["score"], rel=TOLERANCE[dtype])
    tolerance = 100 * TOLERANCE[dtype]  # for weights: Adam makes full steps from tiny gradients
    np.testing.assert_allclose(ours["weights"], alone["weights"], atol=tolerance)
    np.testing.assert_allclose(ours["averages"], alone["averages"], rtol=tolerance)


@pytest.mark.parametrize("size", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4))])
def test_losses_and_weights_are_those_of_one_process(tmp_path, size):
    """With AdamW and Muon, with and without accumulation and sharded averages, in both dtypes."""
    ranks = answers(size, [PROGRAM, "train"], tmp_path)
    for number, case in enumerate(program.CASES):
        ours = [rank[number] for rank in ranks]
        alone = program.trained((*case[:3], False))
        assert len({rank["hash"] for rank in ours}) == 1, case
        assert ours[0]["steps"] == ours[-1]["steps"]
        assert_close(ours[0], alone, case[1])


def test_workers_are_forked_before_mpi_starts(tmp_path):
    before, after, processes, threads = answers(2, [PROGRAM, "workers"], tmp_path)[0]
    assert before is None and after.startswith("MPI has been started")
    assert_close(processes, program.trained(program.CASES[0]), "float32")
    assert threads == processes


def test_a_loop_of_ones_own(tmp_path):
    """The mean of the ranks' mean gradients is the gradient of the mean loss."""
    ours, other = answers(2, [PROGRAM, "by_hand"], tmp_path)
    assert ours == other
    for a, b in zip(ours, program.by_hand(mpi.Ranks(place=mpi.Place())), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory there is")
def test_averages_of_others_take_no_memory(tmp_path):
    """Averages of 3 M parameters take 24 MB. Each of two ranks keeps half, also after a save."""
    for name in ("shard", "whole"):
        (tmp_path / name).mkdir()
    shared = answers(2, [PROGRAM, "memory", "shard"], tmp_path / "shard")
    whole = answers(2, [PROGRAM, "memory", "whole"], tmp_path / "whole")
    for ours, other in zip(shared, whole, strict=True):
        for kilobytes, all_of_it in zip(ours, other, strict=True):
            assert all_of_it - kilobytes == pytest.approx(12e6 / 1024, rel=0.05)


FAILURES = [
    ("killed", 1, "rank 1 (process {pid}) has died"),
    ("hangs", 2, "rank 2 (process {pid}) has not come within 3 seconds"),
    ("raises", 0, "rank 0 (process {pid}) has stopped: No space left on device"),
    ("diverges", 1, "the parameters of rank 1 differ from those of all others"),
    pytest.param("exits", 2, "rank 2 (process {pid}) has died", marks=pytest.mark.slow),
    pytest.param("stopped", 0, "rank 0 (process {pid}) has not come", marks=pytest.mark.slow),
    pytest.param("killed", 0, "rank 0 (process {pid}) has died", marks=pytest.mark.slow),
    pytest.param("diverges", 0, "the parameters of rank 0 differ", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("how", "who", "told"), FAILURES)
def test_the_others_stop_and_name_the_rank(tmp_path, how, who, told):
    """This works in time if a rank dies, hangs, raises an error or computes something else."""
    for _ in range(3):  # on a busy machine MPICH's launcher sometimes ends all ranks itself
        done = mpirun(3, [PROGRAM, "fail", how, str(who), str(tmp_path)], cleanup=False, timeout=60)
        if list(tmp_path.glob("*.json")):
            break
    assert done.returncode != 0
    written = {int(path.stem): json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    expected = {0, 1, 2} if how == "diverges" else {0, 1, 2} - {who}
    assert written.keys() == expected, done.stderr
    start, _, end = told.partition("process {pid}")
    for message, ranks, seconds in written.values():
        assert message.startswith(start) and end.rstrip(")") in message, message
        assert ranks == [who]
        assert seconds < 20  # twice the patience, and time for a busy machine


def test_two_that_differ_are_both_named():
    ranks = mpi.Ranks(place=mpi.Place())
    ranks.compare(np.array([4.0, 4.0]), "the weights")
    with pytest.raises(mpi.RankError, match="the weights of rank 0 differ from those of rank 1"):
        ranks.compare(np.array([4.0, 5.0]), "the weights")
    with pytest.raises(mpi.RankError, match="ranks 1, 3 differ from those of all others"):
        ranks.compare(np.array([4.0, 5.0, 4.0, 5.0, 4.0]), "the weights")
    assert issubclass(mpi.RankError, WorkerError)


def test_one_process_needs_no_mpi(monkeypatch):
    """Its numbers are bitwise identical to those of the engine that it uses."""
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    monkeypatch.setattr(mpi.place, "__defaults__", ({},))
    assert mpi.place() == mpi.Place()
    model = nn.Linear(3, 2, rng=mg.Generator(0))
    engine = mpi.DataParallel(
        model, optim.AdamW(model.parameters()), lambda part, key: model(mg.Tensor(part[0])).sum()
    )
    x = np.ones((5, 3), np.float32)
    assert engine.gradients((x,), scale=0.2) == engine.own.gradients((x,), scale=0.2)
    assert engine.evaluate((x,)) == engine.own.evaluate((x,))
    engine.close()


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setattr(ranks_module.importlib.util, "find_spec", lambda name: None)
    mpi.Ranks(place=mpi.Place())
    with pytest.raises(RuntimeError, match=r'pip install -e "\.\[mpi\]"'):
        mpi.Ranks(place=mpi.Place(0, 2))


LAUNCHERS = [
    ({}, (0, 1, 0, 1, "", 0)),
    ({"PMI_RANK": "1", "PMI_SIZE": "4"}, (1, 4, 0, 1, "MPICH", 0)),
    (
        {
            "OMPI_COMM_WORLD_RANK": "5",
            "OMPI_COMM_WORLD_SIZE": "8",
            "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
        },
        (5, 8, 1, 4, "Open MPI", 0),
    ),
    (
        {
            "SLURM_PROCID": "6",
            "SLURM_STEP_NUM_TASKS": "7",
            "SLURM_LOCALID": "2",
            "SLURM_NODEID": "1",
            "SLURM_STEP_TASKS_PER_NODE": "4,3",
            "SLURM_CPUS_PER_TASK": "16",
        },
        (6, 7, 2, 3, "Slurm", 16),
    ),
    (
        {
            "SLURM_PROCID": "6",
            "SLURM_STEP_NUM_TASKS": "8",
            "SLURM_NODEID": "2",
            "SLURM_STEP_TASKS_PER_NODE": "2(x4)",
        },
        (6, 8, 0, 2, "Slurm", 0),
    ),
    # The script of a batch job is not a task of a job step.
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1, 0, 1, "", 0)),
    (
        {"FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "2", "FLUX_TASK_LOCAL_ID": "0"},
        (0, 2, 0, 1, "Flux", 0),
    ),
    ({"PMI_RANK": "4", "PMI_SIZE": "4"}, (0, 1, 0, 1, "", 0)),  # there is no such rank
    ({"PMI_RANK": "x", "PMI_SIZE": "4"}, (0, 1, 0, 1, "", 0)),
]


@pytest.mark.parametrize(("variables", "expected"), LAUNCHERS)
def test_launchers_say_who_a_rank_is(variables, expected):
    assert tuple(mpi.place(variables)) == expected


def test_ranks_of_a_host_share_its_cores():
    assert mpi.Place(0, 8, 0, 4).workers(16) == 4
    assert mpi.Place(0, 8, 0, 8).workers(4) == 1
    assert mpi.Place(0, 8, 0, 4, cores=6).workers(16) == 6


def test_a_matrix_that_is_updated_whole_is_not_cut():
    model, optimizer, loss = program.make("muon", "float32")
    engine = mpi.DataParallel(model, optimizer, loss, ranks=mpi.Ranks(place=mpi.Place()))
    for size in range(1, 9):
        bounds = cut(engine.flat, optimizer, size)
        assert bounds == sorted(bounds) and (bounds[0], bounds[-1]) == (0, engine.flat.bounds[-1])
        assert not any(a < bound < b for bound in bounds for a, b in ((0, 60), (60, 120)))


def test_a_process_is_told_from_a_later_one_of_its_number():
    this = Process.this()
    if not this.system:
        pytest.skip("this system does not tell when processes began")
    assert not this.ended()
    assert this._replace(began=this.began - 1).ended()
    assert not this._replace(system="another host", pid=2**22 + 1).ended()
    assert this._replace(pid=2**22 + 1).ended()
