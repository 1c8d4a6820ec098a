"""Kernels are compiled several at a time, before the first of them is launched."""

import threading
from typing import Any

import numpy as np
import pytest

from minigrad.kernels.cuda import KERNELS, compile
from minigrad.kernels.cuda.compile import compiling_ahead
from minigrad.ops import TEXTBOOK
from tests.tinyalpaca.runs import MODEL, TRAINING, write_text
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.training.job import run_training


def test_nothing_is_launched_and_all_is_there_after(gpu: Any, rng: np.random.Generator) -> None:
    x, w = (gpu.asarray(rng.standard_normal(shape)) for shape in ((4, 3), (2, 3)))
    with compiling_ahead():
        y, saved = KERNELS[TEXTBOOK["linear"]].forward(x, w, None)
        KERNELS[TEXTBOOK["linear"]].backward(y, saved, (True, True, False))
        assert gpu.counts["launches"] == 0
    y, _ = KERNELS[TEXTBOOK["linear"]].forward(x, w, None)
    assert gpu.counts["launches"] == 1
    np.testing.assert_allclose(y.get(), x.get() @ w.get().T)


def test_a_kernel_that_does_not_compile_says_so(gpu: Any, monkeypatch: Any) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("expected a ';'")

    monkeypatch.setattr(compile, "_function", fails)
    x = gpu.zeros((4, 3))
    with pytest.raises(ValueError, match="expected a ';'"), compiling_ahead():
        KERNELS[TEXTBOOK["relu"]].forward(x)


@pytest.mark.stand_in
def test_the_first_step_of_a_training_waits_for_no_compiler(
    gpu: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    """Other threads have compiled all kernels of a step before the training thread needs them."""
    trains, found, original = threading.get_ident(), [], compile._function

    def asked(*kernel: Any) -> Any:
        found.append((threading.get_ident(), kernel[-1]))
        return original(*kernel)

    monkeypatch.setattr(compile, "_function", asked)
    settings = {**TRAINING, "data": str(write_text(tmp_path)), "out": str(tmp_path / "run")}
    settings |= {"device": "gpu", "precision": "fp32", "max_steps": 2, "epoch_sample_tokens": 0}
    run_training(ModelConfig(**MODEL), TrainConfig(**{**settings, "preflight": False}))
    ahead = {name for thread, name in found if thread != trains}
    launched = {name for thread, name in found if thread == trains}
    assert {"gather_windows", "step_orders<float>"} < ahead
    # These belong to measurements beside a step, and to the report's picture of attention.
    assert launched - ahead <= {"change_squares<float>", "layer_norm_forward<float>"}
