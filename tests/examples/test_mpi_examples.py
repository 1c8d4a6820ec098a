"""The example programs about many machines do what they document."""

import runpy
from math import log2
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.mpirun import mpirun

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def model():
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / "scaling_model.py")))


def test_a_program_trains_alone_and_on_many(capsys):
    path = EXAMPLES / "train_on_many_machines.py"
    assert runpy.run_path(str(path))["main"](20) < 3
    alone = capsys.readouterr().out
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40
    assert mpirun(2, [str(path)]).stdout.splitlines()[:2] == alone.splitlines()


def test_the_model_gives_the_textbooks_times(model):
    """For 8 ranks, 8 MB, a latency of 1 and a bandwidth of 1 MB per second."""
    slow = model.Cluster("slow", 1e6, 1.0, 1e6)
    assert model.ring(8, 8e6, slow) == pytest.approx(14 * 1.0 + 14 / 8 * 8)
    assert model.halves(8, 8e6, slow) == pytest.approx(6 * 1.0 + 14 / 8 * 8)
    assert model.tree(8, 8e6, slow) == pytest.approx(6 * (1.0 + 8))
    assert model.meeting(8, slow) == pytest.approx(3.0 + 7 * 64e-6)
    assert all(way(1, 8e6, slow) == 0 for way in (model.ring, model.halves, model.tree))
    assert model.memory(4, model.WORKLOADS[2]) == pytest.approx((16 * 0.124, 10 * 0.124))


def test_more_ranks_pay_as_long_as_the_batch_is_large(model):
    """Without latency the limit is near C·β/(2·M)."""
    work = model.Workload("one", 1e6, 0, 0, 100, 2**20)
    fast = model.Cluster("fast", 1e14, 0.0, 1e9)
    balance = work.operations / fast.rate * fast.bandwidth / (2 * 4 * work.parameters)
    assert abs(log2(model.stops_paying(work, fast)) - log2(balance)) < 1.5
    twice = work._replace(batch=2**21)
    assert model.stops_paying(twice, fast) == 2 * model.stops_paying(work, fast)
    larger = work._replace(parameters=1e9)
    assert abs(model.stops_paying(larger, fast) / model.stops_paying(work, fast) - 1) < 1.1


def test_the_tables_go_to_4096_ranks(model):
    text = model.tables()
    assert text.count("    4,096") == len(model.CLUSTERS) + 1
    assert all(work.name in text for work in model.WORKLOADS)
