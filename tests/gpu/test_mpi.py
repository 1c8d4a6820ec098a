"""Several ranks, each with a GPU of its own, make the steps of one process on the CPU."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.gpu import mpi_program as program
from tests.mpirun import mpirun
from tests.tinyalpaca.runs import train, write_text

pytestmark = [pytest.mark.slow, pytest.mark.stand_in]
SETTINGS = {"batch_size": 4, "epochs": 5, "eval_every": 4, "accumulate": 2}


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_gpus_make_the_steps_of_one_process(tmp_path, kept_folder, optimizer):
    """Gradients go through pinned memory of the host; each rank takes the GPU of its number.

    A step of AdamW is two graphs, with the exchange between them; Muon's are made by the host.
    """
    text = write_text(tmp_path)
    settings = tmp_path / "settings.json"
    more = {"data": str(text), "out": str(tmp_path / "run"), "device": "gpu", "distributed": True}
    steps = {**SETTINGS, "optimizer": optimizer, "max_steps": 12 if optimizer == "adamw" else 4}
    settings.write_text(json.dumps({**steps, **more}), encoding="utf-8")
    done = mpirun(2, [str(Path(program.__file__)), str(kept_folder), str(settings)])
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["device"] for rank in ranks] == ["gpu", "gpu:1"]
    assert [rank["graphs"] for rank in ranks] == [2 if optimizer == "adamw" else None] * 2
    assert ranks[0]["hash"] == ranks[1]["hash"]
    alone = train(tmp_path / "cpu", text, **steps)
    losses = [loss for _, loss in alone.metrics.losses]
    np.testing.assert_allclose(ranks[0]["losses"], losses, rtol=2e-5)
