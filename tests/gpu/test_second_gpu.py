"""Work on `gpu:1` runs on that GPU, whichever GPU is the current one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.device import Device
from minigrad.kernels.cuda.columns import column_sums
from tests.tinyalpaca.runs import train, write_text
from tinyalpaca.generation import Generator
from tinyalpaca.training import job

pytestmark = pytest.mark.stand_in


@pytest.fixture(autouse=True)
def two(gpu: Any) -> None:
    gpu.engine.devices = 2


def test_a_kernel_runs_where_its_arrays_are(gpu: Any) -> None:
    with Device("gpu:1").in_use():
        a = gpu.ones((100, 4))
    with pytest.raises(RuntimeError, match="an array of GPU 1, the current one is 0"):
        a + 1
    with Device("gpu:1").in_use():
        into = gpu.zeros(4)
    assert column_sums(a, into).get().tolist() == [100] * 4


@pytest.mark.parametrize("textbook", [False, True])
def test_ops_gradients_and_optimizers(gpu: Any, rng: np.random.Generator, textbook: bool) -> None:
    results = []
    for device in ("cpu", "gpu:1"):
        layer = nn.Sequential(
            nn.Linear(5, 4, rng=mg.Generator(0)),
            nn.GELU(),
            nn.LayerNorm(4),
            nn.Linear(4, 3, rng=mg.Generator(1)),
        )
        layer.to(device)
        x = mg.Tensor(np.random.default_rng(3).standard_normal((7, 5)).astype("f4"), device=device)
        optimizer = optim.AdamW(layer.parameters(), lr=0.1)
        with mg.textbook() if textbook else mg.enable_grad():
            for _ in range(2):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(layer(x), np.array([0, 1, 2, 0, 1, 2, 0]))
                loss.backward()
                optim.clip_grad_norm_(layer.parameters(), 0.1)
                optimizer.step()
        assert {str(p.device) for p in layer.parameters()} == {device}
        results.append([p.numpy() for p in layer.parameters()])
    for ours, wanted in zip(*reversed(results), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-4)
    assert gpu.engine.device == 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"graph": False}, marks=pytest.mark.slow),
        pytest.param({"dropout": 0.2, "ema": 0.9}, marks=pytest.mark.slow),
    ],
)
def test_training_and_generating(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    text = write_text(tmp_path)
    dropout = {"dropout": changes.get("dropout", 0.0)}
    settings = {"batch_size": 4, "max_steps": 6, "precision": "fp32", "log_every": 2}
    settings |= {k: v for k, v in changes.items() if k != "dropout"}
    first = train(tmp_path / "0", text, dropout, device="gpu", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(job, "choose_device", lambda name: Device("gpu:1"))
        second = train(tmp_path / "1", text, dropout, device="gpu", **settings)
    assert str(second.task.parameters[0].device) == "gpu:1"
    assert second.metrics.losses == first.metrics.losses and gpu.engine.device == 0
    texts = {
        Generator.from_checkpoint(tmp_path / "1", device).generate("the ", 12, seed=1)
        for device in ("cpu", "gpu", "gpu:1")
    }
    assert len(texts) == 1 and gpu.engine.device == 0


def test_a_gpu_that_is_not_there_is_one_line(gpu: Any) -> None:
    for use in (
        lambda: mg.zeros(3, device="gpu:2"),
        lambda: nn.Linear(2, 2, rng=mg.Generator(0)).to("gpu:2"),
        lambda: job.choose_device("gpu:2"),
    ):
        with pytest.raises(mg.DeviceError, match=r"^there is no device 'gpu:2': there are 2 GPUs"):
            use()
