"""AdamW on CUDA, through the CPU shim. `test_step_kernels.py` tests decisions on the device."""

import numpy as np
import pytest

from minigrad.kernels.cuda import adamw
from minigrad.ops.updates.adamw import adamw as textbook
from tests.gpu.twins import PRECISIONS, assert_close

SETTINGS = {"lr": 0.01, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("size", [1, 255, 1000, 70_000])
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("captured", [False, True])
def test_three_steps(gpu, rng, size, scale, captured, dtype):
    """With numbers from the host, and from the device, where the last step is not made."""
    p, m, v = rng.standard_normal(size), np.zeros(size), np.zeros(size)
    p = p.astype(dtype).astype(np.float64)
    device = [gpu.asarray(a.astype(dtype)) for a in (p, m, v)]
    for step in (1, 2, 3):
        g = rng.standard_normal(size).astype(dtype)
        statics = {**SETTINGS, "weight_decay": 0.1, "step": step}
        param, m_device, v_device = device
        arrays = (param, gpu.asarray(g), m_device, v_device)
        if captured:
            told = {"lr": 0.01, "step": step, "grad_scale": scale, "made": step < 3}
            numbers = {name: gpu.full((), float(number)) for name, number in told.items()}
            adamw.adamw_step_captured(*arrays, **{**statics, **numbers})
        else:
            adamw.adamw_step(*arrays, **statics, grad_scale=scale)
        if not captured or step < 3:
            p, m, v = textbook.step(np, p, g.astype(np.float64) * scale, m, v, **statics)
    for got, wanted, name in zip(device, (p, m, v), "pmv", strict=True):
        assert_close(got, wanted, name)


def test_steps_count_from_one(gpu):
    with pytest.raises(ValueError, match="counts from 1"):
        adamw.adamw_step(*[gpu.zeros(2)] * 4, **SETTINGS, weight_decay=0.0, step=0)
