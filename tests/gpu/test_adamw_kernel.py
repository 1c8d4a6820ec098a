"""The norm of gradients and AdamW on CUDA, through the CPU shim."""

import numpy as np
import pytest

from minigrad.kernels.cuda import adamw
from minigrad.ops.updates.adamw import adamw as textbook
from minigrad.optim.clip import clip_scale
from tests.gpu.twins import PRECISIONS, SCHEDULES, assert_close

SETTINGS = {"lr": 0.01, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("size", [1, 255, 1000, 70_000])
@pytest.mark.parametrize("clipped", [False, True])
def test_three_steps(gpu, rng, size, clipped, dtype):
    p, m, v = rng.standard_normal(size), np.zeros(size), np.zeros(size)
    p = p.astype(dtype).astype(np.float64)
    device = [gpu.asarray(a.astype(dtype)) for a in (p, m, v)]
    for step in (1, 2, 3):
        g = rng.standard_normal(size).astype(dtype)
        on_device, exact = gpu.asarray(g), g.astype(np.float64)
        norm, scale = float(np.linalg.norm(exact)), 1.0
        grad_scale = 1.0
        if clipped:
            scale = clip_scale(norm, 0.5)
            result = adamw.grad_norm(on_device, 0.5)
            np.testing.assert_allclose(result.get(), [norm, scale], rtol=1e-12)
            grad_scale = result[1:]
        statics = {**SETTINGS, "weight_decay": 0.1, "step": step}
        p, m, v = textbook.step(np, p, exact * scale, m, v, **statics)
        param, m_device, v_device = device
        adamw.adamw_step(param, on_device, m_device, v_device, **statics, grad_scale=grad_scale)
    for got, wanted, name in zip(device, (p, m, v), "pmv", strict=True):
        assert_close(got, wanted, name)


def test_a_weight_decay_for_each_element(gpu, rng):
    p, g = rng.standard_normal((2, 300))
    decays = np.where(np.arange(300) < 100, 0.1, 0.0)
    device = [gpu.asarray(a) for a in (p, g, np.zeros(300), np.zeros(300))]
    adamw.adamw_step(*device, **SETTINGS, weight_decay=gpu.asarray(decays), step=1)
    zeros = np.zeros(300)
    wanted, _, _ = textbook.step(np, p, g, zeros, zeros, **SETTINGS, weight_decay=decays, step=1)
    assert_close(device[0], wanted, "p")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_norm(gpu, rng, schedule, dtype):
    gpu.engine.schedule = schedule
    g = rng.standard_normal((300, 700)).astype(dtype)
    norm, scale = adamw.grad_norm(gpu.asarray(g)).get()
    assert norm == pytest.approx(np.linalg.norm(g.astype(np.float64)), rel=1e-13)
    assert scale == 1


def test_the_norm_of_nothing_and_of_nan(gpu):
    np.testing.assert_array_equal(adamw.grad_norm(gpu.zeros(0), 1.0).get(), [0, 1])
    np.testing.assert_array_equal(
        adamw.grad_norm(gpu.asarray(np.array([1.0, np.nan])), 1.0).get(), [np.nan, np.nan]
    )


def test_steps_count_from_one(gpu):
    with pytest.raises(ValueError, match="counts from 1"):
        adamw.adamw_step(*[gpu.zeros(2)] * 4, **SETTINGS, weight_decay=0.0, step=0)
