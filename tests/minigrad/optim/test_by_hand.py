"""Every optimizer's rule compared with results by hand, without another framework.

Each rule is tested three times: the page, the optimizer, and the optimizer with flat memory. The
expected numbers are fractions, or come from a few lines that follow the paper number by number.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, nn
from minigrad.ops.updates import muon as muon_pages
from minigrad.ops.updates.adamw import adamw
from minigrad.ops.updates.muon import muon
from minigrad.ops.updates.sgd import sgd
from minigrad.optim import SGD, Adam, AdamW, Muon, Optimizer, RMSprop
from tests.minigrad.optim.problem import gradients, parameters, run

START = 4.0
GRADIENTS = (1.0, -2.0, 0.5)


def path_of(make: Callable[[list[Any]], Optimizer], *, flat: bool = False) -> list[float]:
    """The parameter after each step."""
    parameter, other = nn.Parameter(np.array([START])), nn.Parameter(np.array([7.0, 8.0]))
    optimizer, path = make([parameter, other]), []
    if flat:
        optimizer.flatten().zero_grad()
    for gradient in GRADIENTS:
        for p in (parameter, other):
            if p.grad is None:
                p.grad = Tensor(np.full(p.shape, gradient))
            else:
                p.grad.data[...] = gradient
        optimizer.step()
        path.append(parameter.item())
    return path


# SGD with lr 1/4 from 4, gradients 1, -2, 1/2. The comments list velocities or directions.
SGD_BY_HAND: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "plain": ({}, ("15/4", "17/4", "33/8")),
    # 1; 1/2 - 2; -3/4 + 1/2
    "momentum": ({"momentum": 0.5}, ("15/4", "33/8", "67/16")),
    # 1, without dampening; 1/2 - 3/2; -1/2 + 3/8
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
    assert path == [float(Fraction(x)) for x in expected]  # sums of powers of 2 are exact


@pytest.mark.parametrize("label", SGD_BY_HAND)
def test_the_page_of_sgd(label: str) -> None:
    settings, expected = SGD_BY_HAND[label]
    full = {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, **settings}
    p, velocity = np.array([START]), [np.zeros(1)]
    for number, (gradient, wanted) in enumerate(zip(GRADIENTS, expected, strict=True)):
        g, before = np.array([gradient]), p.copy()
        settings = full if number else {**full, "dampening": 0}
        after, *velocity = sgd.step(np, p, g, *velocity, lr=0.25, **settings)
        assert after == float(Fraction(wanted))
        assert p == before and g == gradient, "a page writes nothing in place"
        p = after
    assert len(velocity) == (full["momentum"] != 0)


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
    wanted: list[Any] = [(p.numpy().copy(), np.zeros_like(p.numpy())) for p in params]
    optimizer = SGD(params, lr=0.01, **settings)
    for number in range(6):
        run(optimizer, params, range(number, number + 1))
        for i, g in enumerate(gradients(number)):
            p, *velocity = wanted[i]
            now = full if number else {**full, "dampening": 0}
            wanted[i] = sgd.step(np, p, g.astype(dtype), *velocity, lr=0.01, **now)
        for p, (value, *_) in zip(params, wanted, strict=True):
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
    """The corrected average equals the gradient, so |step| is lr for any gradient."""
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
        p, m, v = adamw.step(np, p, np.array([gradient]), m, v, **s, step=t)
        np.testing.assert_allclose([p[0], m[0], v[0]], wanted, rtol=1e-13)


def muon_by_hand(w: Any, grads: list[Any], lr: float, mu: float, decay: float) -> list[Any]:
    """Muon by the singular value decomposition, with Jordan's polynomial of the singular values."""
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
        w, buffer = muon.step(np, w, g, buffer, **settings)
        parameter.grad = Tensor(g)
        optimizer.step()
        # errors along singular vectors whose values are near 0 are amplified by 3.4445⁵
        np.testing.assert_allclose(w, wanted, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(parameter.numpy(), wanted, rtol=1e-9, atol=1e-11)


def test_a_row_goes_its_own_length(rng: np.random.Generator) -> None:
    """A row has one singular value, which starts at 1; five rounds of the polynomial follow."""
    s = 1.0
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    row = rng.standard_normal((1, 1, 7))
    found = muon_pages.orthogonalized(np, row)
    np.testing.assert_allclose(found, s * row / np.linalg.norm(row), rtol=1e-6)  # norm + 1e-7
    assert 0.65 < s < 1.25


def adam_by_hand(
    lr: float, beta1: float, beta2: float, eps: float, decay: float, largest: bool, decoupled: bool
) -> list[float]:
    """Kingma and Ba, algorithm 1, number by number; and Reddi, Kale and Kumar's largest average."""
    theta, m, v, most, path = START, 0.0, 0.0, 0.0, []
    for t, g in enumerate(GRADIENTS, 1):
        if decoupled:
            theta = theta - lr * decay * theta
        else:
            g = g + decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        most = max(most, v)
        v_hat = (most if largest else v) / (1 - beta2**t)
        theta = theta - lr * m / (1 - beta1**t) / (v_hat**0.5 + eps)
        path.append(theta)
    return path


@pytest.mark.parametrize("label", ADAMW)
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_adam_and_the_largest_average(kind: Any, largest: bool, flat: bool, label: str) -> None:
    s = ADAMW[label]
    settings = {"lr": s["lr"], "eps": s["eps"], "weight_decay": s["decay"], "amsgrad": largest}
    path = path_of(lambda p: kind(p, betas=(s["beta1"], s["beta2"]), **settings), flat=flat)
    expected = adam_by_hand(**s, largest=largest, decoupled=kind is AdamW)
    np.testing.assert_allclose(path, expected, rtol=1e-13)


def rmsprop_by_hand(
    lr: float, alpha: float, eps: float, decay: float, momentum: float, centered: bool
) -> list[float]:
    """Hinton's lecture number by number, or with Graves' variance instead of the mean square."""
    theta, square, mean, velocity, path = START, 0.0, 0.0, 0.0, []
    for g in GRADIENTS:
        g = g + decay * theta
        square = alpha * square + (1 - alpha) * g**2
        mean = alpha * mean + (1 - alpha) * g
        root = (square - mean**2 if centered else square) ** 0.5
        velocity = momentum * velocity + g / (root + eps)
        theta = theta - lr * velocity
        path.append(theta)
    return path


RMSPROP: dict[str, dict[str, Any]] = {
    "defaults": {"alpha": 0.99, "eps": 1e-8, "decay": 0.0, "momentum": 0.0, "centered": False},
    "decay": {"alpha": 0.5, "eps": 0.5, "decay": 0.5, "momentum": 0.0, "centered": False},
    "momentum": {"alpha": 0.75, "eps": 1e-8, "decay": 0.1, "momentum": 0.5, "centered": False},
    "centered": {"alpha": 0.75, "eps": 1e-8, "decay": 0.0, "momentum": 0.0, "centered": True},
    "both": {"alpha": 0.5, "eps": 0.25, "decay": 0.1, "momentum": 0.75, "centered": True},
}


@pytest.mark.parametrize("label", RMSPROP)
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("context", [mg.enable_grad, mg.textbook])
def test_rmsprop(label: str, flat: bool, context: Any) -> None:
    s = dict(RMSPROP[label])
    expected = rmsprop_by_hand(0.25, **s)
    s["weight_decay"] = s.pop("decay")
    with context():
        path = path_of(lambda p: RMSprop(p, lr=0.25, **s), flat=flat)
    np.testing.assert_allclose(path, expected, rtol=1e-13)


def test_the_first_step_of_rmsprop_is_known() -> None:
    """The mean square is (1 - α)g², so |step| is lr/√(1 - α) for any gradient."""
    path = path_of(lambda p: RMSprop(p, lr=0.5, alpha=0.75, eps=0.0))
    assert path[0] == pytest.approx(4 - 0.5 / 0.5, rel=1e-14)
    centered = path_of(lambda p: RMSprop(p, lr=0.5, alpha=0.75, eps=0.0, centered=True))
    assert centered[0] == pytest.approx(4 - 0.5 / np.sqrt(0.25 - 0.0625), rel=1e-14)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop, Muon])
def test_to_maximize_is_to_minimize_the_opposite(kind: Any) -> None:
    up, down = nn.Parameter(np.array([START, 1.0])), nn.Parameter(np.array([START, 1.0]))
    climbing = kind([up], lr=0.25, weight_decay=0.5, maximize=True)
    falling = kind([down], lr=0.25, weight_decay=0.5)
    for gradient in GRADIENTS:
        up.grad, down.grad = Tensor([gradient, 2.0]), Tensor([-gradient, -2.0])
        climbing.step()
        falling.step()
        np.testing.assert_array_equal(up.numpy(), down.numpy())
