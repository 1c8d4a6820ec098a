"""Decisions of a training step on the GPU: its batch, whether it is made, and learning rates."""

from typing import Any

import numpy as np
import pytest

from minigrad.kernels.cuda import adamw, orders
from minigrad.ops.updates.adamw import adamw as textbook
from minigrad.optim.clip import clip_scale
from tests.gpu.twins import PRECISIONS, SCHEDULES, assert_close
from tinyalpaca.training import windows

BETAS, EPS = (0.9, 0.98), 1e-6


@pytest.mark.parametrize("cursor, first, rows, time", [(0, 0, 3, 7), (2, 1, 4, 127), (0, 0, 1, 1)])
def test_windows_are_gathered_where_the_tokens_lie(
    gpu: Any, rng: np.random.Generator, cursor: int, first: int, rows: int, time: int
) -> None:
    tokens = rng.integers(0, 1000, 500).astype(np.int32)
    starts = rng.integers(0, len(tokens) - time, cursor + first + rows)
    x, y = windows.gather(
        gpu.asarray(tokens),
        gpu.asarray(starts),
        gpu.asarray(np.array([cursor])),
        **{"first": first, "rows": rows, "time": time},
    )
    wanted = tokens[starts[cursor + first :][:, None] + np.arange(time + 1)]
    np.testing.assert_array_equal(x.get(), wanted[:, :-1])
    np.testing.assert_array_equal(y.get(), wanted[:, 1:])


def test_windows_beyond_the_end_are_no_tokens(gpu: Any) -> None:
    around = gpu.asarray(np.concatenate([[77], np.arange(10), [77]]).astype(np.int32))
    tokens, cursor = around[1:-1], gpu.zeros(1, np.int64)
    starts = gpu.asarray(np.array([5, -3, 100]))
    x, y = windows.gather(tokens, starts, cursor, first=0, rows=4, time=6)
    assert x.get()[0].tolist() == [5, 6, 7, 8, -1, -1]
    assert y.get()[0].tolist() == [6, 7, 8, 9, -1, -1]
    assert x.get()[1].tolist() == [-1] * 3 + [0, 1, 2]
    assert (x.get()[2:] == -1).all()


def update(state: orders.StepState, arrays: list[Any], *, group: int, weight_decay: float) -> None:
    """An AdamW step of a group, with the numbers in the state's orders."""
    made, scale, _, number, *rates = state.orders
    adamw.adamw_step_captured(
        *arrays,
        **{"lr": rates[group], "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS},
        **{"weight_decay": weight_decay, "step": number, "grad_scale": scale, "made": made},
    )


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ordered_steps_are_the_textbooks(
    gpu: Any, rng: np.random.Generator, dtype: Any, schedule: Any
) -> None:
    """With two groups, an average of the weights, learning rates by step, and counters."""
    gpu.engine.schedule = schedule
    size, split, decays = 700, 300, (0.1, 0.0)
    rates = np.array([[0.01, 0.02, 0.03], [0.04, 0.05, 0.06]])
    p = rng.standard_normal(size).astype(dtype).astype(np.float64)
    m, v, average = np.zeros(size), np.zeros(size), p.copy()
    device = [gpu.asarray(a.astype(dtype)) for a in (p, m, v, average)]
    state = orders.StepState(2, 3, ring=2)
    state.rates[...] = gpu.asarray(rates)
    parts = (slice(0, split), slice(split, size))
    for step in range(3):
        g = rng.standard_normal(size).astype(dtype)
        norm = float(np.linalg.norm(g.astype(np.float64)))
        orders.order_step(
            gpu.asarray(g),
            gpu.asarray(np.asarray(2 * step + 1, dtype)),
            state,
            **{"max_norm": 3.0, "windows": 5, "draws": 2},
            **{"average_decay": 0.3, "loss_scale": 0.5},
        )
        grad = gpu.asarray(g)
        for group, part in enumerate(parts):
            update(
                state,
                [device[0][part], grad[part], device[1][part], device[2][part]],
                group=group,
                weight_decay=decays[group],
            )
            statics = {"lr": rates[group, step], "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS}
            p[part], m[part], v[part] = textbook.step(
                *(np, p[part], g[part].astype(np.float64) * clip_scale(norm, 3.0)),
                *(m[part], v[part]),
                **statics,
                **{"weight_decay": decays[group], "step": step + 1},
            )
        orders.average_ordered(device[3], device[0], state)
        decay = min(0.3, (2 + step) / (11 + step))
        average = decay * average + (1 - decay) * p
        np.testing.assert_allclose(state.history.get()[:, step % 2], [step + 0.5, norm], rtol=1e-12)
    assert state.counters.get().tolist() == [3, 3, 15, 0] and state.draw.get().tolist() == [6]
    for got, wanted, name in zip(device, (p, m, v, average), "pmva", strict=True):
        assert_close(got, wanted, name)


@pytest.mark.parametrize("bad", ["loss", "gradient"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_step_that_is_not_finite_halts(gpu: Any, bad: str, value: float) -> None:
    p, m, v, average = (gpu.asarray(np.full(300, x)) for x in (1.0, 0.1, 0.2, 3.0))
    state = orders.StepState(1, 4, ring=4)
    state.rates[...] = 0.1
    settings = {"max_norm": 1.0, "windows": 5, "average_decay": 0.5}

    def step(loss: float, gradient: float) -> None:
        grad = gpu.asarray(np.full(300, gradient))
        orders.order_step(grad, gpu.asarray(np.asarray(loss)), state, **settings)
        update(state, [p, grad, m, v], group=0, weight_decay=0.1)
        orders.average_ordered(average, p, state)

    step(1.0, 0.5)
    before = [a.get().tobytes() for a in (p, m, v, average)]
    step(value if bad == "loss" else 1.0, value if bad == "gradient" else 0.5)
    step(2.0, 0.5)
    assert [a.get().tobytes() for a in (p, m, v, average)] == before
    assert state.counters.get().tolist() == [1, 1, 5, 1] and state.draw.get().tolist() == [1]
    assert not np.isfinite(state.history.get()[0 if bad == "loss" else 1, 1])
    assert state.history.get()[0, 2] == 0
    state.counters[3] = 0
    step(2.0, 0.5)
    assert state.counters.get().tolist() == [2, 2, 10, 0]
    assert p.get().tobytes() != before[0]
