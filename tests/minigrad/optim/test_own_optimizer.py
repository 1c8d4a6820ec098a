"""An optimizer of your own needs only a rule and its settings."""

import copy
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, nn
from minigrad.optim import CosineAnnealingLR, Optimizer, Rule
from tests.minigrad.optim.problem import gradients, parameters, run


class lion(Rule):
    """Chen et al., arXiv:2302.06675."""

    state = ("exp_avg",)

    def step(xp, p, g, m, *, lr, betas, weight_decay):
        ahead = betas[0] * m + (1 - betas[0]) * g
        p = p * (1 - lr * weight_decay) - lr * xp.sign(ahead)
        return p, betas[1] * m + (1 - betas[1]) * g


class Lion(Optimizer):
    rule = lion

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})


class signs(Rule):
    def step(xp, p, g, *, lr):
        return p - lr * xp.sign(g)


class Signs(Optimizer):
    """An optimizer without state, with the setting `maximize`."""

    rule = signs

    def __init__(self, params: Any, lr: float = 1e-2, maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "maximize": maximize})


def lion_by_hand(params: list[Any], steps: range) -> list[np.ndarray]:
    values, averages = [p.numpy().copy() for p in params], [0.0 * p.numpy() for p in params]
    for step in steps:
        for i, g in enumerate(gradients(step)):
            values[i] = values[i] * (1 - 0.01 * 0.1) - 0.01 * np.sign(0.9 * averages[i] + 0.1 * g)
            averages[i] = 0.99 * averages[i] + 0.01 * g
    return values


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("context", [mg.enable_grad, mg.textbook])
def test_it_does_what_its_rule_says(flat: bool, context: Any) -> None:
    params = parameters()
    expected = lion_by_hand(params, range(5))
    optimizer = Lion(params, weight_decay=0.1)
    if flat:
        optimizer.flatten().zero_grad()
    with context():
        run(optimizer, params, range(5))
    for p, value in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.numpy(), value, rtol=1e-13)


def test_it_is_saved_copied_and_scheduled() -> None:
    params = parameters()
    optimizer = Lion([{"params": params[:2]}, {"params": params[2:], "lr": 0.1}])
    schedule = CosineAnnealingLR(optimizer, 10)
    run(optimizer, params, range(3))
    schedule.step()
    state = optimizer.state_dict()
    assert [g["betas"] for g in state["param_groups"]] == [(0.9, 0.99)] * 2
    assert [set(e) for e in state["state"].values()] == [{"exp_avg"}] * 4
    twin = copy.deepcopy(optimizer)
    others = [nn.Parameter(p.numpy().copy()) for p in params]
    third = Lion([{"params": others[:2]}, {"params": others[2:]}])
    third.load_state_dict(state)
    for one, its in ((optimizer, params), (twin, twin.parameters()), (third, others)):
        run(one, its, range(3, 6))
    for p, q, r in zip(params, twin.parameters(), others, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
        np.testing.assert_array_equal(p.numpy(), r.numpy())


def test_a_rule_without_state_and_its_maximum() -> None:
    down, up = nn.Parameter([1.0, 2.0]), nn.Parameter([1.0, 2.0])
    for p, optimizer in ((down, Signs([down], 0.5)), (up, Signs([up], 0.5, maximize=True))):
        p.grad = Tensor([3.0, -1.0])
        optimizer.step()
        assert optimizer.state_dict()["state"] == {}
    assert down.tolist() == [0.5, 2.5] and up.tolist() == [1.5, 1.5]


def test_half_precision_is_computed_in_float32() -> None:
    p = nn.Parameter(np.ones(3, np.float16))
    optimizer = Lion([p])
    p.grad = Tensor(np.full(3, 1e-4, np.float16))
    optimizer.step()
    assert p.dtype == np.float16 and optimizer.state[p]["exp_avg"].dtype == np.float32


def test_a_kernel_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def kernel(p: Any, g: Any, m: Any, *, grad_scale: float = 1.0, **settings: Any) -> None:
        calls.append(p.size)
        p[...], m[...] = lion.step(np, p.copy(), g * grad_scale, m.copy(), **settings)

    monkeypatch.setitem(lion.kernels, "cpu", kernel)
    params, others = parameters(), parameters()
    ours, plain = Lion(params), Lion(others)
    ours.flatten().zero_grad()
    run(ours, params, range(2))
    assert calls == [sum(p.size for p in params)] * 2
    with mg.textbook():
        run(plain, others, range(2))
    assert len(calls) == 2
    for p, q in zip(params, others, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


@pytest.mark.parametrize("flat", [False, True])
def test_gradients_count_by_a_factor_and_stay(flat: bool) -> None:
    for kind in (Lion, mg.optim.SGD, mg.optim.AdamW, mg.optim.RMSprop):
        params, others = parameters(), parameters()
        ours, plain = kind(params, lr=0.01), kind(others, lr=0.01)
        if flat:
            ours.flatten().zero_grad()
        for step in range(3):
            for p, q, g in zip(params, others, gradients(step), strict=True):
                p.grad = Tensor(np.zeros_like(g)) if p.grad is None else p.grad
                p.grad.data[...] = g
                q.grad = Tensor(g / 8)
            ours.step(1 / 8)
            plain.step()
            for p, q, g in zip(params, others, gradients(step), strict=True):
                np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-12)
                np.testing.assert_array_equal(p.grad.numpy(), g)  # type: ignore[union-attr]


def test_mistakes() -> None:
    with pytest.raises(TypeError, match="the rule 'nothing' has no step"):

        class nothing(Rule):
            pass

    class forgetful(Rule):
        state = ("exp_avg",)

        def step(xp, p, g, m, *, lr):
            return p - lr * g

    class Forgetful(Optimizer):
        rule = forgetful

    p = nn.Parameter([1.0])
    p.grad = Tensor([1.0])
    with pytest.raises(ValueError, match=r"'forgetful' returned 1 arrays.* 1 of its state"):
        Forgetful([p], {"lr": 0.1}).step()


def test_memory_of_others_is_refused() -> None:
    params = parameters()
    flat = mg.optim.FlatParameters(params)
    with pytest.raises(ValueError, match="holds other parameters, or has them in another order"):
        Lion(params[::-1]).flatten(flat)
    assert Lion(params[:2]).flatten(flat) is flat, "they may be the first of it"
