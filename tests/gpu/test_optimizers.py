"""Every optimizer's steps on a GPU equal those on the CPU, through the stand-in."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import optim
from tests.minigrad.optim.problem import gradients, parameters

CASES: dict[str, Any] = {
    "sgd": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adam without decay": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, maximize=True),
    "amsgrad": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "muon": lambda p: optim.Muon([{"params": p[:1], "orthogonal": True}, {"params": p[1:]}]),
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_steps_and_state_are_the_cpus(gpu: Any, name: str, flat: bool) -> None:
    results = []
    for device in ("cpu", "gpu"):
        params: list[Any] = parameters()
        for p in params:
            p.move(mg.Device(device).asarray(p.array))
        optimizer = CASES[name](params)
        if flat:
            optimizer.flatten().attach_grad()
        for step in range(3):
            for p, g in zip(params, gradients(step), strict=True):
                p.grad = mg.Tensor(np.zeros_like(g), device=device) if p.grad is None else p.grad
                p.grad.array[...] = p.device.asarray(g)
            optimizer.step(0.5)
        if device == "gpu":
            assert isinstance(optimizer.state_dict()["state"][0], dict)
        entries = optimizer.state_dict()["state"].values()
        state = [v for entry in entries for v in entry.values() if isinstance(v, np.ndarray)]
        assert len(state) >= len(params)
        results.append([*(p.numpy() for p in params), *state])
    for ours, expected in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("norm_type", [1, 2, 3, float("inf")])
def test_clipping(gpu: Any, norm_type: float) -> None:
    values, norms = [], []
    for device in ("cpu", "gpu"):
        p = mg.nn.Parameter(mg.Tensor([0.0, 0.0, 0.0], device=device))
        p.grad = mg.Tensor([3.0, -4.0, 12.0], device=device)
        norms.append(optim.clip_grad_norm_([p], 2.0, norm_type))
        optim.clip_grad_value_([p], 1.0)
        values.append(p.grad.numpy())
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    np.testing.assert_allclose(values[1], values[0], rtol=1e-6)
