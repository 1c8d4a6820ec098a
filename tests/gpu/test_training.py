"""`--device gpu` from end to end on the stand-in for CuPy: training, validation, checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from tests.tinyalpaca.runs import results, resume, train, write_text

# Sums in another order, 20-odd steps of AdamW long: losses agree to some units of float32.
TOLERANCE = 2e-5
SETTINGS: dict[str, Any] = {"batch_size": 4, "epochs": 2}


def assert_same_run(ours: Any, reference: Any) -> None:
    """The losses of every step, and the records of every epoch.

    Weights are not compared: the true gradient of the keys' biases is 0, and AdamW makes steps of
    full length from what rounding leaves of it.
    """
    assert len(ours.step_losses) == len(reference.step_losses) >= 20
    assert [s for s, _ in ours.step_losses] == [s for s, _ in reference.step_losses]
    losses = [[loss for _, loss in t.step_losses] for t in (ours, reference)]
    np.testing.assert_allclose(*losses, rtol=TOLERANCE)
    np.testing.assert_allclose(results(ours), results(reference), rtol=10 * TOLERANCE)
    assert losses[0][-1] < losses[0][0] - 0.1


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path)


def test_the_textbook_trains_on_the_device(gpu: Any, tmp_path: Path, text: Path) -> None:
    reference = train(tmp_path / "cpu", text, **SETTINGS)
    with mg.textbook():
        ours = train(tmp_path / "gpu", text, device="gpu", **SETTINGS)
    assert ours.engine.flat.data.__class__ is gpu.ndarray
    assert_same_run(ours, reference)
    assert gpu.counts["matmul"] > 100


def test_kernels_train_on_the_device(gpu: Any, tmp_path: Path, text: Path) -> None:
    reference = train(tmp_path / "cpu", text, **SETTINGS)
    ours = train(tmp_path / "gpu", text, device="gpu", **SETTINGS)
    assert_same_run(ours, reference)
    for kernel in ("attention_backward", "layer_norm_backward", "embedding_backward", "gemm_fma"):
        assert gpu.counts[kernel] >= ours.step, kernel
    assert gpu.counts["matmul"] == 0


def test_a_checkpoint_goes_from_device_to_device(gpu: Any, tmp_path: Path, text: Path) -> None:
    whole = train(tmp_path / "whole", text, **SETTINGS)
    train(tmp_path / "parts", text, device="gpu", **{**SETTINGS, "max_steps": 7, "epochs": 2})
    ours = resume(tmp_path / "parts", device="cpu", max_steps=0)
    assert ours.step == whole.step
    np.testing.assert_allclose(results(ours)[-1], results(whole)[-1], rtol=10 * TOLERANCE)


def test_asking_for_a_gpu_that_is_not_there(gpu: Any, tmp_path: Path, text: Path) -> None:
    gpu.cuda.runtime.getDeviceCount = lambda: 0
    with pytest.raises(mg.DeviceError, match="there is no GPU"):
        train(tmp_path / "gpu", text, device="gpu")
