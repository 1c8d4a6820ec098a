"""Compares SGD with PyTorch's."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.optim import SGD
from tests.minigrad.optim.problem import assert_equal_to_torch, parameters, run

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"lr": 0.01},
    "decay": {"lr": 0.01, "weight_decay": 0.1},
    "momentum": {"lr": 0.01, "momentum": 0.9},
    "dampening": {"lr": 0.01, "momentum": 0.9, "dampening": 0.3},
    "nesterov": {"lr": 0.01, "momentum": 0.8, "nesterov": True},
    "all": {"lr": 0.005, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("label", SETTINGS)
def test_equal_to_torch_over_100_steps(label: str, flat: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    settings = SETTINGS[label]
    assert_equal_to_torch(
        lambda p: SGD(p, **settings), lambda p: torch.optim.SGD(p, **settings), flat=flat
    )


def test_groups_have_settings_of_their_own() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")

    def groups(p: list[Any]) -> list[dict[str, Any]]:
        return [{"params": p[:1], "lr": 0.1}, {"params": p[1:], "momentum": 0.5}]

    assert_equal_to_torch(
        lambda p: SGD(groups(p), lr=0.01), lambda p: torch.optim.SGD(groups(p), lr=0.01)
    )


def test_a_state_goes_on_bit_for_bit() -> None:
    settings = SETTINGS["all"]
    params = parameters()
    optimizer = SGD(params, **settings)
    run(optimizer, params, range(5))
    copies = parameters()
    for p, q in zip(params, copies, strict=True):
        q.assign(p)
    other = SGD(copies, lr=123.0)
    other.load_state_dict(optimizer.state_dict())
    run(optimizer, params, range(5, 10))
    run(other, copies, range(5, 10))
    for p, q in zip(params, copies, strict=True):
        assert np.array_equal(p.numpy(), q.numpy())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "SGD: lr must not be negative, it is -1.0"),
        ({"momentum": -0.1}, "SGD: momentum must not be negative"),
        ({"weight_decay": -0.1}, "SGD: weight_decay must not be negative"),
        ({"nesterov": True}, "SGD: nesterov needs momentum > 0 and dampening = 0"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "SGD: nesterov needs momentum"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SGD(parameters(), **settings)
    with pytest.raises(ValueError, match=message):
        SGD([{"params": parameters(), **settings}])


def test_it_learns() -> None:
    x = mg.nn.Parameter([4.0, -3.0])
    optimizer = SGD([x], lr=0.1, momentum=0.5)
    for _ in range(80):
        optimizer.zero_grad()
        ((x - 1) ** 2).sum().backward()
        optimizer.step()
    assert np.abs(x.numpy() - 1).max() < 1e-5
