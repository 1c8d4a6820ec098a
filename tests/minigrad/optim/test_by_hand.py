"""Every optimizer's rule, computed by hand: nothing here needs another framework.

Each rule is held three times: the textbook page, the optimizer, and the optimizer over parameters
that lie side by side in memory. The numbers come from fractions, or from a few lines that follow
the paper number by number.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, nn
from minigrad.ops import adamw as adamw_page
from minigrad.ops import muon as muon_page
from minigrad.ops import sgd as sgd_page
from minigrad.optim import SGD, AdamW, FlatParameters, Muon, Optimizer
from tests.minigrad.optim.problem import gradients, parameters, run

START = 4.0
GRADIENTS = (1.0, -2.0, 0.5)


def path_of(make: Callable[[list[Any]], Optimizer], *, flat: bool = False) -> list[float]:
    """The parameter after each step."""
    parameter, other = nn.Parameter(np.array([START])), nn.Parameter(np.array([7.0, 8.0]))
    if flat:
        FlatParameters([parameter, other]).zero_grad()
    optimizer, path = make([parameter, other]), []
    for gradient in GRADIENTS:
        for p in (parameter, other):
            if p.grad is None:
                p.grad = Tensor(np.full(p.shape, gradient))
            else:
                p.grad.data[...] = gradient
        optimizer.step()
        path.append(parameter.item())
    return path


# SGD with lr 1/4 from 4, gradients 1, -2, 1/2. What the velocity or the direction is stands beside.
SGD_BY_HAND: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "plain": ({}, ("15/4", "17/4", "33/8")),
    # 1; 1/2 - 2; -3/4 + 1/2
    "momentum": ({"momentum": 0.5}, ("15/4", "33/8", "67/16")),
    # 1, not dampened; 1/2 - 3/2; -1/2 + 3/8
    "dampening": ({"momentum": 0.5, "dampening": 0.25}, ("15/4", "4", "129/32")),
    # velocities as with momentum; 1 + 1/2, -2 - 3/4, 1/2 - 1/8
    "nesterov": ({"momentum": 0.5, "nesterov": True}, ("29/8", "69/16", "135/32")),
    # 1 + 4/2; -2 + 13/8; 1/2 + (13/4 + 3/32)/2
    "decay": ({"weight_decay": 0.5}, ("13/4", "107/32", "717/256")),
    # gradients 3, -2 + 13/8, ...: 3; 3/2 - 3/8; 9/16 + 1/2 + 95/64
    "momentum and decay": (
        {"momentum": 0.5, "weight_decay": 0.5},
        ("13/4", "95/32", "597/256"),
    ),
}


@pytest.mark.parametrize("label", SGD_BY_HAND)
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("context", [mg.enable_grad, mg.textbook])
def test_sgd(label: str, flat: bool, context: Any) -> None:
    settings, expected = SGD_BY_HAND[label]
    with context():
        path = path_of(lambda p: SGD(p, lr=0.25, **settings), flat=flat)
    assert path == [float(Fraction(x)) for x in expected]  # powers of 2: nothing is rounded


@pytest.mark.parametrize("label", SGD_BY_HAND)
def test_the_page_of_sgd(label: str) -> None:
    settings, expected = SGD_BY_HAND[label]
    full = {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, **settings}
    p, velocity = np.array([START]), None
    for gradient, wanted in zip(GRADIENTS, expected, strict=True):
        g, before = np.array([gradient]), p.copy()
        after, velocity = sgd_page.step(p, g, velocity, lr=0.25, **full)
        assert after == float(Fraction(wanted))
        assert p == before and g == gradient, "a page writes nothing in place"
        p = after
    assert (velocity is None) == (full["momentum"] == 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
    ],
)
def test_sgd_is_its_page(dtype: Any, settings: dict[str, Any]) -> None:
    full = {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, **settings}
    params = parameters(dtype)
    wanted: list[tuple[Any, Any]] = [(p.numpy().copy(), None) for p in params]
    optimizer = SGD(params, lr=0.01, **settings)
    for number in range(6):
        run(optimizer, params, range(number, number + 1))
        for i, g in enumerate(gradients(number)):
            p, velocity = wanted[i]
            wanted[i] = sgd_page.step(p, g.astype(dtype), velocity, lr=0.01, **full)
        for p, (value, _) in zip(params, wanted, strict=True):
            assert p.dtype == dtype
            np.testing.assert_allclose(p.numpy(), value, rtol=4 * np.finfo(dtype).eps)


def adamw_by_hand(
    lr: float, beta1: float, beta2: float, eps: float, decay: float
) -> tuple[list[float], list[float], list[float]]:
    """Loshchilov and Hutter, algorithm 2, number by number: parameters and both averages."""
    theta, m, v = START, 0.0, 0.0
    path, first, second = [], [], []
    for t, g in enumerate(GRADIENTS, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        theta = theta - lr * m_hat / (v_hat**0.5 + eps) - lr * decay * theta
        path, first, second = [*path, theta], [*first, m], [*second, v]
    return path, first, second


ADAMW = {
    "defaults": {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.01},
    "no decay": {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "decay": 0.0},
    "much decay": {"lr": 0.25, "beta1": 0.75, "beta2": 0.5, "eps": 1e-8, "decay": 0.5},
    "large eps": {"lr": 0.1, "beta1": 0.5, "beta2": 0.75, "eps": 0.5, "decay": 0.1},
    "no averages": {"lr": 0.1, "beta1": 0.0, "beta2": 0.0, "eps": 0.25, "decay": 0.1},
}


@pytest.mark.parametrize("label", ADAMW)
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("context", [mg.enable_grad, mg.textbook])
def test_adamw(label: str, flat: bool, context: Any) -> None:
    s = ADAMW[label]
    settings = {"lr": s["lr"], "eps": s["eps"], "weight_decay": s["decay"]}
    with context():
        path = path_of(lambda p: AdamW(p, betas=(s["beta1"], s["beta2"]), **settings), flat=flat)
    np.testing.assert_allclose(path, adamw_by_hand(**s)[0], rtol=1e-13)


def test_the_first_steps_of_adamw_are_known() -> None:
    """The average over its correction is the gradient: |step| is lr, whatever the gradient is."""
    path = path_of(lambda p: AdamW(p, lr=0.5, eps=0.0, weight_decay=0.25))
    assert path[0] == pytest.approx(4 * (1 - 0.5 * 0.25) - 0.5, rel=1e-14)
    # m̂ = (0.09 - 0.2)/0.19, v̂ = (0.000999 + 0.004)/0.001999
    step = (0.09 - 0.2) / 0.19 / np.sqrt(0.004999 / 0.001999)
    assert path[1] == pytest.approx(3 * (1 - 0.5 * 0.25) - 0.5 * step, rel=1e-11)


@pytest.mark.parametrize("label", ADAMW)
def test_the_page_of_adamw(label: str) -> None:
    s = dict(ADAMW[label])
    expected = adamw_by_hand(**s)
    s["weight_decay"] = s.pop("decay")
    p, m, v = np.array([START]), np.zeros(1), np.zeros(1)
    for t, (gradient, *wanted) in enumerate(zip(GRADIENTS, *expected, strict=True), 1):
        # the gradient counts grad_scale times
        g = np.array([4 * gradient])
        p, m, v = adamw_page.step(np, p, g, m, v, **s, step=t, grad_scale=0.25)
        np.testing.assert_allclose([p[0], m[0], v[0]], wanted, rtol=1e-13)


def muon_by_hand(w: Any, grads: list[Any], lr: float, mu: float, decay: float) -> list[Any]:
    """With the singular value decomposition, and Jordan's polynomial of each singular value."""
    b, path = np.zeros_like(w), []
    for g in grads:
        b = mu * b + (1 - mu) * g
        u, s, vt = np.linalg.svd(mu * b + (1 - mu) * g, full_matrices=False)
        s = s / (np.sqrt(np.sum(s**2)) + 1e-7)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        w = (1 - lr * decay) * w - lr * 0.2 * np.sqrt(max(w.shape)) * (u @ np.diag(s) @ vt)
        path.append(w)
    return path


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (2, 5), (1, 3), (3, 1)])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_muon(shape: tuple[int, int], decay: float, rng: np.random.Generator) -> None:
    start, grads = rng.standard_normal(shape), list(rng.standard_normal((3, *shape)))
    w, buffer = start, np.zeros(shape)
    parameter = nn.Parameter(start)
    settings = {"lr": 0.25, "momentum": 0.75, "weight_decay": decay}
    optimizer = Muon([parameter], **settings, orthogonal=True)
    for g, wanted in zip(grads, muon_by_hand(start, grads, 0.25, 0.75, decay), strict=True):
        w, buffer = muon_page.step(np, w, g, buffer, **settings)
        parameter.grad = Tensor(g)
        optimizer.step()
        # what is left of singular vectors whose values come near 0 is amplified by 3.4445⁵
        np.testing.assert_allclose(w, wanted, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(parameter.numpy(), wanted, rtol=1e-9, atol=1e-11)


def test_a_row_goes_its_own_length(rng: np.random.Generator) -> None:
    """A row has one singular value, which starts at 1: five turns of the polynomial."""
    s = 1.0
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    row = rng.standard_normal((1, 1, 7))
    found = muon_page.orthogonalized(np, row)
    np.testing.assert_allclose(found, s * row / np.linalg.norm(row), rtol=1e-6)  # 1e-7 in the norm
    assert 0.65 < s < 1.25
