"""Several ranks, each with its own GPU, make the same steps as one process on the CPU."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.parallel.mpi.wire import Wire
from tests.gpu import mpi_program as program
from tests.mpirun import mpirun
from tests.tinyalpaca.runs import train, write_text

SETTINGS = {"batch_size": 4, "epochs": 5, "eval_every": 4, "accumulate": 2}


@pytest.mark.slow
@pytest.mark.stand_in
@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_gpus_make_the_steps_of_one_process(tmp_path, kept_folder, optimizer):
    """Gradients go through pinned memory of the host; each rank uses the GPU with its number.

    A step is two graphs, with the exchange between them.
    """
    text = write_text(tmp_path)
    settings = tmp_path / "settings.json"
    more = {"data": str(text), "out": str(tmp_path / "run"), "device": "gpu", "distributed": True}
    steps = {**SETTINGS, "optimizer": optimizer, "max_steps": 12 if optimizer == "adamw" else 6}
    settings.write_text(json.dumps({**steps, **more}), encoding="utf-8")
    done = mpirun(2, [str(Path(program.__file__)), str(kept_folder), str(settings)])
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["device"] for rank in ranks] == ["gpu", "gpu:1"]
    assert [rank["graphs"] for rank in ranks] == [2, 2]
    assert ranks[0]["hash"] == ranks[1]["hash"]
    alone = train(tmp_path / "cpu", text, **steps)
    losses = [loss for _, loss in alone.metrics.losses]
    np.testing.assert_allclose(ranks[0]["losses"], losses, rtol=2e-5)


class Doubled:
    """Exchanges arrays of two ranks that have the same gradient: the sum is twice the array."""

    rank, size = 0, 2

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def sum(self, array: Any) -> None:
        self.seen.append(array)
        array *= 2

    def broadcast(self, array: Any) -> None:
        self.seen.append(array)


class FakeNccl:
    """Replaces `cupyx.distributed`."""

    def NCCLBackend(self, size: int, rank: int, use_mpi: bool) -> Any:
        assert (size, rank, use_mpi) == (2, 0, True)
        return self

    def all_reduce(self, source: Any, target: Any) -> None:
        target *= 2


@pytest.mark.stand_in
@pytest.mark.parametrize("way", ["host", "device", "nccl"])
def test_what_each_wire_hands_to_whom(gpu: Any, monkeypatch: Any, way: str) -> None:
    monkeypatch.setitem(sys.modules, "cupyx.distributed", FakeNccl())
    gradient, ranks = gpu.asarray(np.arange(5, dtype=np.float32)), Doubled()
    wire = Wire(ranks, gradient, way)
    wire.sum()
    wire.sum()
    np.testing.assert_array_equal(gradient.get(), 4 * np.arange(5, dtype=np.float32))
    kinds = {"host": [np.ndarray] * 2, "device": [type(gradient)] * 2, "nccl": []}
    assert [type(array) for array in ranks.seen] == kinds[way]
    if way == "host":  # one buffer, which is reused
        assert ranks.seen[0] is ranks.seen[1]
    wire.broadcast(gradient)
    assert type(ranks.seen[-1]) is np.ndarray


def test_there_is_no_other_wire() -> None:
    with pytest.raises(ValueError, match="a wire is one of host, device, nccl, not 'usb'"):
        Wire(Doubled(), np.zeros(3), "usb")
