"""`--device gpu` as a whole on the stand-in for CuPy: training, validation, checkpoints."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import optim
from minigrad.errors import CaptureWarning, KernelFallbackWarning
from minigrad.ops.updates.muon import muon
from minigrad.parallel.capture import Captured
from minigrad.storage import load_safetensors
from tests.tinyalpaca.runs import (
    MODEL,
    TRAINING,
    assert_same_weights,
    final_weights,
    results,
    resume,
    train,
    write_text,
)
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.runs import RunFolder
from tinyalpaca.training.gpu_steps import GpuSteps, check_tokens
from tinyalpaca.training.job import run_training
from tinyalpaca.training.loss import Loss
from tinyalpaca.training.steps import HostSteps
from tinyalpaca.training.stopping import TrainingStopped
from tinyalpaca.training.task import Own

# The GPU sums in another order. Over some 20 steps of AdamW losses agree to a few units of float32.
TOLERANCE = 2e-5
SETTINGS: dict[str, Any] = {"batch_size": 4, "epochs": 2, "precision": "fp32"}
TWENTY = {**SETTINGS, "max_steps": 20}
STEPS_BETWEEN_LOOKS = 5


def assert_same_run(ours: Any, reference: Any, tolerance: float = TOLERANCE) -> None:
    """The losses of every step and the records of every epoch are the same.

    Weights are not compared: the true gradient of the keys' biases is 0, and AdamW makes steps of
    full length from the rounding error in it.
    """
    assert len(ours.metrics.losses) == len(reference.metrics.losses) >= 20
    assert [s for s, _ in ours.metrics.losses] == [s for s, _ in reference.metrics.losses]
    losses = [[loss for _, loss in t.metrics.losses] for t in (ours, reference)]
    np.testing.assert_allclose(*losses, rtol=tolerance)
    np.testing.assert_allclose(results(ours), results(reference), rtol=10 * tolerance)
    assert losses[0][-1] < losses[0][0] - 0.1


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path)


def test_the_textbook_trains_on_the_device(gpu: Any, tmp_path: Path, text: Path) -> None:
    reference = train(tmp_path / "cpu", text, **SETTINGS)
    with mg.textbook():
        ours = train(tmp_path / "gpu", text, device="gpu", graph=False, **SETTINGS)
    assert ours.task.engine.flat.data.__class__ is gpu.ndarray
    assert_same_run(ours, reference)
    assert gpu.counts["matmul"] > 100


def test_a_step_is_one_graph_and_the_host_looks_once_in_many(
    gpu: Any, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main claim: the CPU's losses, one launch per step, no transfer until results are read."""
    reference = train(tmp_path / "cpu", text, **SETTINGS)
    budgets: list[dict[str, int]] = []
    run = GpuSteps.run

    def counted(steps: Any, state: Any) -> Any:
        ready = steps.place and steps.plan and steps.launched.graphs
        gpu.counts.clear()
        made = run(steps, state)
        if ready and len(made) == STEPS_BETWEEN_LOOKS:
            budgets.append(dict(gpu.counts))
        return made

    monkeypatch.setattr(GpuSteps, "run", counted)
    monkeypatch.setattr(
        "tinyalpaca.training.hooks.metrics.UpdateRatios.remember", lambda ratios: None
    )
    settings = {**SETTINGS, "log_every": STEPS_BETWEEN_LOOKS}
    ours = train(tmp_path / "gpu", text, device="gpu", **settings)
    assert_same_run(ours, reference)
    assert len(budgets) >= 3
    for budget in budgets:
        assert budget == {"graph launches": STEPS_BETWEEN_LOOKS, "d2h": 1}


# Settings that differ from the default step, with the layers that the test needs.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "pre-norm, GELU, tied": ({"pre_norm": True, "activation": "gelu", "tie_weights": True}, {}),
    "rotary, RMS, SiLU, no bias": (
        {"positions": "rotary", "norm": "rms", "activation": "silu", "bias": False},
        {},
    ),
    "groups, clipping, schedule": (
        {},
        {"decay": "matrices", "grad_clip": 0.3, "schedule": "cosine", "warmup_steps": 4},
    ),
    "accumulation, average": ({}, {"accumulate": 3, "batch_size": 2, "ema": 0.9}),
    "Muon, average": ({}, {"optimizer": "muon", "ema": 0.9}),
    "random windows, smoothing": ({}, {"windows": "random", "label_smoothing": 0.1}),
    "shifted windows, cooldown": (
        {},
        {"windows": "shifted", "schedule": "linear", "warmup_steps": 2, "cooldown": 0.5},
    ),
}


RARE = (  # also covered by other tests: slow
    "plain",
    "groups, clipping, schedule",
    "random windows, smoothing",
    "shifted windows, cooldown",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in RARE else ()) for n in VARIANTS]
)
def test_the_same_run_as_on_the_cpu(gpu: Any, tmp_path: Path, text: Path, name: str) -> None:
    model, changes = VARIANTS[name]
    settings = {**TWENTY, "log_every": STEPS_BETWEEN_LOOKS, **changes}
    reference = train(tmp_path / "cpu", text, model, **settings)
    ours = train(tmp_path / "gpu", text, model, device="gpu", **settings)
    assert ours.steps.launched.graphs >= 1
    assert_same_run(ours, reference, 1e-4)
    assert gpu.counts["matmul"] == 0


def test_the_look_before_training_changes_nothing(gpu: Any, tmp_path: Path, text: Path) -> None:
    """It runs after the device has got its counters. Tested with an average of the weights too."""
    settings = {**SETTINGS, "device": "gpu", "max_steps": 6, "ema": 0.9}
    train(tmp_path / "with", text, preflight=True, **settings)
    train(tmp_path / "without", text, preflight=False, **settings)
    assert_same_weights(tmp_path / "with", tmp_path / "without")


def test_what_has_no_kernel_is_the_textbook_and_says_so(
    gpu: Any, tmp_path: Path, text: Path
) -> None:
    """A model like Llama's: the run is the same, with one warning for each op."""
    model = {
        **{"pre_norm": True, "norm": "rms", "activation": "swiglu", "positions": "rotary"},
        **{"num_heads": 4, "num_kv_heads": 2, "head_size": 6, "bias": False, "qkv_bias": True},
    }
    settings = {**TWENTY, "log_every": STEPS_BETWEEN_LOOKS}
    reference = train(tmp_path / "cpu", text, model, **settings)
    with pytest.warns(KernelFallbackWarning) as found:
        ours = train(tmp_path / "gpu", text, model, device="gpu", **settings)
    said = [str(warning.message) for warning in found]
    assert said == ["swiglu: the textbook runs on the gpu: it has no kernel there"]
    assert gpu.counts["matmul"] == 0
    assert ours.steps.launched.graphs >= 1
    assert_same_run(ours, reference, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"dropout": 0.2}], ids=["plain", "dropout"])
def test_a_graph_and_its_kernels_one_by_one_give_the_same_bits(
    gpu: Any, tmp_path: Path, text: Path, changes: dict[str, Any]
) -> None:
    with_graph = train(tmp_path / "graph", text, changes, device="gpu", **TWENTY)
    launches = gpu.counts["graph launches"]
    without = train(tmp_path / "eager", text, changes, device="gpu", graph=False, **TWENTY)
    assert launches > 0 and gpu.counts["graph launches"] == launches
    assert with_graph.metrics.losses == without.metrics.losses
    assert_same_weights(tmp_path / "graph", tmp_path / "eager")


@pytest.mark.slow
def test_masks_of_dropout_change_from_step_to_step(gpu: Any, tmp_path: Path, text: Path) -> None:
    """Weights do not change and an epoch has one batch, so only masks can change a loss."""
    still = {**SETTINGS, "learning_rate": 1e-30, "weight_decay": 0.0, "batch_size": 1000}
    still |= {"epochs": 5, "log_every": 100}
    ours = train(tmp_path / "gpu", text, {"dropout": 0.3}, device="gpu", **still)
    assert ours.steps.launched.graphs == 1
    losses = [loss for _, loss in ours.metrics.losses]
    assert len(set(losses)) == len(losses) == 5
    assert np.std(losses) < 0.1 * np.mean(losses)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"accumulate": 2, "schedule": "linear"}])
def test_a_run_that_stops_and_goes_on_is_the_run_that_never_stopped(
    gpu: Any, tmp_path: Path, text: Path, changes: dict[str, Any]
) -> None:
    settings = {**SETTINGS, "log_every": 4, "device": "gpu", **changes}
    whole = train(tmp_path / "whole", text, {"dropout": 0.1}, **settings)
    train(tmp_path / "parts", text, {"dropout": 0.1}, **{**settings, "max_steps": 7})
    ours = resume(tmp_path / "parts", max_steps=0)
    if "schedule" not in changes:  # a schedule depends on max_steps
        assert_same_weights(tmp_path / "parts", tmp_path / "whole")
        assert results(ours)[-1] == results(whole)[-1]
    assert ours.state.step == whole.state.step


@pytest.mark.slow
def test_a_checkpoint_goes_from_device_to_device(gpu: Any, tmp_path: Path, text: Path) -> None:
    whole = train(tmp_path / "whole", text, **SETTINGS)
    train(tmp_path / "parts", text, device="gpu", **{**SETTINGS, "max_steps": 7})
    resume(tmp_path / "parts", device="cpu", max_steps=13)
    ours = resume(tmp_path / "parts", device="gpu", max_steps=0)
    assert ours.state.step == whole.state.step
    np.testing.assert_allclose(results(ours)[-1], results(whole)[-1], rtol=10 * TOLERANCE)


@pytest.fixture
def bad_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Turns the loss of the step whose draw counter is 6 into NaN, on the device."""
    original = Loss.on_device

    def poisoned(self: Any, x: Any, y: Any, draw: Any, ahead: int) -> Any:
        distance = draw.astype(np.float32) - 6  # 0·(0 - 6), ..., 0/0 at the seventh step
        return original(self, x, y, draw, ahead) * mg.Tensor(distance / distance).reshape(())

    with monkeypatch.context() as patch:
        patch.setattr(Loss, "on_device", poisoned)
        yield


def test_a_step_that_is_not_finite_stops_with_the_weights_before_it(
    gpu: Any, tmp_path: Path, text: Path, bad_step: Any
) -> None:
    """The host reads it back only after four more steps have been launched."""
    settings = {**SETTINGS, "log_every": 11, "device": "gpu"}
    reference = train(tmp_path / "six", text, **{**settings, "max_steps": 6})
    with pytest.raises(TrainingStopped, match="step 7: loss nan"):
        train(tmp_path / "run", text, **settings)
    assert RunFolder(tmp_path / "run").latest().name == "step-00000006"
    assert_same_weights(tmp_path / "run", tmp_path / "six")
    report = json.loads(next((tmp_path / "run").glob("bad-steps/*/report.json")).read_text())
    assert report["step"] == 7 and report["texts"]
    batch, _ = load_safetensors(tmp_path / "run/bad-steps/step-00000007/batch.safetensors")
    windows = reference.task.sampler.batch_at(6 * 4, 0)
    np.testing.assert_array_equal(batch["0/x"], reference.task.dataset.batch_at(windows)[0])


@pytest.mark.slow
def test_a_step_that_is_not_finite_can_be_left_out(
    gpu: Any, tmp_path: Path, text: Path, bad_step: Any
) -> None:
    """The steps that were launched after it are then made, as without a graph."""
    settings = {**TWENTY, "skip_bad_steps": True, "device": "gpu", "ema": 0.9}
    often = train(tmp_path / "often", text, **{**settings, "log_every": 1})
    seldom = train(tmp_path / "seldom", text, **{**settings, "log_every": 13})
    assert often.state.skipped == seldom.state.skipped == 1
    np.testing.assert_equal(often.metrics.losses, seldom.metrics.losses)
    assert_same_weights(tmp_path / "often", tmp_path / "seldom")
    assert np.isnan(seldom.metrics.losses[6][1]) and np.isfinite(seldom.metrics.losses[7][1])


def test_an_optimizer_that_needs_the_host_is_announced(
    gpu: Any,
    tmp_path: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(muon, "captured", False)
    ours = train(*(tmp_path / "gpu", text), device="gpu", optimizer="muon", max_steps=3, **SETTINGS)
    assert ours.state.step == 3 and isinstance(ours.steps, HostSteps)
    error = capsys.readouterr().err
    assert error.count("no CUDA graph: the rule 'muon' of Muon looks at values") == 1


def test_a_schedule_that_moves_the_momentum_needs_the_host(
    gpu: Any, tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = []
    for device in ("cpu", "gpu"):
        config = TrainConfig(
            **{**TRAINING, **SETTINGS, "data": str(text), "out": str(tmp_path / device)},
            **{"device": device, "max_steps": 6},
        )
        own = Own(schedule=lambda optimizer, steps: optim.OneCycleLR(optimizer, 0.02, steps))
        run = run_training(ModelConfig(**MODEL), config, own=own)
        losses.append([loss for _, loss in run.metrics.losses])
    assert "no CUDA graph: OneCycleLR moves more than learning rates" in capsys.readouterr().err
    np.testing.assert_allclose(*losses, rtol=TOLERANCE)


@pytest.mark.stand_in
def test_tokens_that_a_gpu_has_no_room_for_stay_with_the_host(
    gpu: Any, tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SETTINGS, "device": "gpu", "max_steps": 8}
    reference = train(tmp_path / "there", text, {"dropout": 0.1}, **settings)
    gpu.cuda.runtime.memGetInfo = lambda: (1000, 10**10)
    ours = train(tmp_path / "here", text, {"dropout": 0.1}, **settings)
    assert "the training tokens would take 0.0 GB of the 0.0 GB" in capsys.readouterr().err
    assert isinstance(reference.steps, GpuSteps)
    assert isinstance(ours.steps, HostSteps)
    losses = [[loss for _, loss in run.metrics.losses] for run in (ours, reference)]
    np.testing.assert_allclose(*losses, rtol=TOLERANCE)


# Launches of the default model's step. Each one costs about two microseconds per step.
LAUNCHES = 57


def test_the_budget_of_launches(
    gpu: Any, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launches in a captured step of four layers, as in the default model."""
    found = {}
    record = Captured._record

    def counting(captured: Any, memory: Any) -> Any:
        before = gpu.counts["launches"]
        result = record(captured, memory)
        found[captured.label] = gpu.counts["launches"] - before
        return result

    monkeypatch.setattr(Captured, "_record", counting)
    few = {**SETTINGS, "max_steps": 4, "device": "gpu"}
    train(tmp_path / "gpu", text, {"num_layers": 4}, **few)
    assert found["training step of 4 sequences"] == LAUNCHES


def test_a_step_that_cannot_be_captured_is_announced(
    gpu: Any, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Loss.on_device

    def looking(self: Any, x: Any, y: Any, draw: Any, ahead: int) -> Any:
        return original(self, x, y, draw, ahead) * float(1 + 0 * x.sum())

    few = {**SETTINGS, "max_steps": 6}
    train(tmp_path / "graph", text, device="gpu", **few)
    monkeypatch.setattr(Loss, "on_device", looking)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        train(tmp_path / "eager", text, device="gpu", **few)
    messages = {str(w.message) for w in found if w.category is CaptureWarning}
    assert any("training step of 4 sequences runs kernel by kernel" in m for m in messages)
    left, right = final_weights(tmp_path / "graph"), final_weights(tmp_path / "eager")
    for name, weights in left.items():
        np.testing.assert_allclose(right[name], weights, atol=1e-5, err_msg=name)


def test_steps_of_the_optimizer_alone_use_the_kernel(gpu: Any, rng: np.random.Generator) -> None:
    start, gradients = rng.standard_normal((2, 5)), rng.standard_normal((4, 2, 5))
    weights = []
    for device in ("cpu", "gpu"):
        parameter = mg.nn.Parameter(mg.Tensor(start.copy(), device=device))
        optimizer = optim.AdamW([parameter], lr=0.1)
        for gradient in gradients:
            parameter.grad = mg.Tensor(gradient, device=device)
            optimizer.step()
        weights.append(parameter.numpy())
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-12)
    assert gpu.counts["adamw_update"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name, bound", [("tf32", 0.002), ("bf16", 0.02)])
def test_the_loss_curve_of_rounded_products_stays_close(
    gpu: Any, tmp_path: Path, text: Path, name: str, bound: float
) -> None:
    exact = train(tmp_path / "fp32", text, device="gpu", **TWENTY)
    rounded = train(tmp_path / name, text, device="gpu", **{**TWENTY, "precision": name})
    assert gpu.counts[f"gemm_{name}"] > 0 and gpu.counts["attention_backward_mma"] > 0
    losses = [np.array([loss for _, loss in t.metrics.losses]) for t in (rounded, exact)]
    assert 0 < np.abs(losses[0] - losses[1]).max() < bound * losses[1][0]
    assert rounded.task.engine.flat.array.dtype == np.float32


@pytest.mark.stand_in
def test_the_output_says_what_computes(
    gpu: Any,
    tmp_path: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("minigrad.precision.Default.name", None)
    quick = {"device": "gpu", "quiet": False, "max_steps": 1}
    train(tmp_path / "a", text, **quick)
    assert "on gpu (a stand-in, matmuls in TF32, one CUDA graph a step)" in capsys.readouterr().out
    train(tmp_path / "b", text, **quick, precision="fp32", graph=False)
    assert "matmuls in float32, kernels launched one by one)" in capsys.readouterr().out


def test_a_precision_that_the_gpu_lacks(
    gpu: Any, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minigrad.precision.capability_of", lambda xp, index: 70)
    with pytest.raises(mg.PrecisionError, match=r"bf16 need a GPU of compute capability 8\.0"):
        train(tmp_path / "gpu", text, device="gpu", precision="bf16")
    assert train(tmp_path / "cpu", text, precision="bf16", max_steps=1).state.step == 1


def test_tokens_are_looked_at_before_they_go_to_the_device() -> None:
    check_tokens(np.array([0, 5, 3], np.uint16), 6)
    for tokens in (np.array([0, 6]), np.array([-1, 2])):
        with pytest.raises(IndexError, match="vocabulary of 6"):
            check_tokens(tokens, 6)


@pytest.mark.stand_in
def test_asking_for_a_gpu_that_is_not_there(gpu: Any, tmp_path: Path, text: Path) -> None:
    gpu.cuda.runtime.getDeviceCount = lambda: 0
    with pytest.raises(mg.DeviceError, match="there is no GPU"):
        train(tmp_path / "gpu", text, device="gpu")
