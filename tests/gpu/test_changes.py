"""How far an update moves each layer: one launch and one copy, through the CPU shim."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.kernels.cuda import changes
from minigrad.kernels.cuda.changes import Changes
from minigrad.optim.flat import FlatParameters
from tests.gpu.twins import PRECISIONS, SCHEDULES
from tinyalpaca.training.hooks.metrics import UpdateRatios


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_squares_of_changes(
    gpu: Any, rng: np.random.Generator, schedule: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of one slice, parts of several slices, and an empty part."""
    monkeypatch.setattr(changes, "LONGEST", 300)
    gpu.engine.schedule = schedule
    bounds = [0, 5, 5, 305, 1000]
    after, before = rng.standard_normal((2, 1000)).astype(dtype)
    found = Changes(bounds).squares(gpu.asarray(after), gpu.asarray(before))
    wanted = [
        [
            ((after[a:b] - before[a:b].astype(float)) ** 2).sum(),
            (before[a:b].astype(float) ** 2).sum(),
        ]
        for a, b in pairwise(bounds)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_ratios_are_those_of_the_cpu(gpu: Any) -> None:
    names, results = ["a.0.w", "a.0.b", "a.1.w", "z.w"], []
    for device in ("cpu", "gpu"):
        generator = mg.Generator(0)
        parameters = [mg.nn.Parameter(generator.normal((7, n))) for n in (3, 1, 4, 2)]
        for parameter in parameters:
            parameter.array = mg.device.Device(device).asarray(parameter.array)
        flat = FlatParameters(parameters)
        ratios = UpdateRatios(flat, names)
        ratios.remember()
        flat.array[:21] *= 1.5
        gpu.counts.clear()
        results.append(ratios.measure())
    assert (gpu.counts["launches"], gpu.counts["d2h"], gpu.counts["change_squares"]) == (1, 1, 1)
    assert list(results[0]) == list(results[1]) == ["a.0", "a.1", "z"]
    np.testing.assert_allclose(list(results[1].values()), list(results[0].values()), rtol=1e-5)
