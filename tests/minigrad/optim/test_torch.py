"""Compares Adam, RMSprop and the switches of all optimizers with PyTorch, over 50 float64 steps."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import optim
from minigrad.optim import clip_grad_norm_, clip_grad_value_
from tests.minigrad.optim.problem import (
    assert_equal_to_torch,
    parameters,
    run,
    set_gradients,
)

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("Adam", {}),
    "adam, betas and eps": ("Adam", {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3}),
    "adam, no averages": ("Adam", {"lr": 0.01, "betas": (0.0, 0.0), "weight_decay": 0.1}),
    "adam, decay": ("Adam", {"lr": 0.01, "weight_decay": 0.3}),
    "adam, amsgrad": ("Adam", {"lr": 0.01, "amsgrad": True}),
    "adam, amsgrad and decay": ("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.3}),
    "adam, maximize": ("Adam", {"lr": 0.01, "maximize": True}),
    "adam, everything": (
        "Adam",
        {"lr": 0.01, "betas": (0.7, 0.8), "weight_decay": 0.3, "amsgrad": True, "maximize": True},
    ),
    "adamw, amsgrad": ("AdamW", {"lr": 0.01, "amsgrad": True}),
    "adamw, amsgrad and decay": ("AdamW", {"lr": 0.01, "weight_decay": 0.3, "amsgrad": True}),
    "adamw, maximize": ("AdamW", {"lr": 0.01, "weight_decay": 0.3, "maximize": True}),
    "sgd, maximize": ("SGD", {"lr": 1e-3, "maximize": True}),
    "sgd, maximize and everything": (
        "SGD",
        {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True, "maximize": True},
    ),
    "rmsprop": ("RMSprop", {}),
    "rmsprop, alpha and eps": ("RMSprop", {"lr": 0.01, "alpha": 0.5, "eps": 1e-3}),
    "rmsprop, decay": ("RMSprop", {"lr": 0.01, "weight_decay": 0.3}),
    "rmsprop, momentum": ("RMSprop", {"lr": 0.01, "momentum": 0.9}),
    "rmsprop, centered": ("RMSprop", {"lr": 0.01, "alpha": 0.9, "centered": True}),
    "rmsprop, everything": (
        "RMSprop",
        {
            "lr": 0.01,
            "alpha": 0.8,
            "weight_decay": 0.1,
            "momentum": 0.8,
            "centered": True,
            "maximize": True,
        },
    ),
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("context", [mg.enable_grad, mg.textbook])
@pytest.mark.parametrize("label", CASES)
def test_equal_to_torch_over_50_steps(label: str, context: Any, flat: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
    kind, settings = CASES[label]
    with context():
        assert_equal_to_torch(
            lambda p: getattr(optim, kind)(p, **settings),
            lambda p: getattr(torch.optim, kind)(p, **settings),
            flat=flat,
            steps=50,
        )


@pytest.mark.parametrize("label", CASES)
def test_a_state_of_torch_goes_on(label: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
    kind, settings = CASES[label]
    params = parameters()
    others = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
    theirs, ours = getattr(torch.optim, kind)(others, **settings), getattr(optim, kind)(params)
    for number in range(6):
        if number == 3:
            saved = theirs.state_dict()
            saved["state"] = {
                n: {k: None if v is None else v.numpy() for k, v in entry.items()}
                for n, entry in saved["state"].items()
            }
            for group in saved["param_groups"]:
                group.pop("decoupled_weight_decay", None)
            ours.load_state_dict(saved)
            for p, q in zip(params, others, strict=True):
                p.assign(q.detach().numpy())
        set_gradients(params, number)
        for p, q in zip(params, others, strict=True):
            q.grad = torch.tensor(p.grad.numpy())  # type: ignore[union-attr]
        theirs.step()
        if number >= 3:
            ours.step()
    for p, q in zip(params, others, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-11)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("label", CASES)
def test_a_saved_state_goes_on_bit_for_bit(label: str, flat: bool) -> None:
    kind, settings = CASES[label]
    params, copies = parameters(), parameters()
    optimizer, other = getattr(optim, kind)(params, **settings), getattr(optim, kind)(copies)
    run(optimizer, params, range(5))
    if flat:
        other.flatten().zero_grad()
    run(other, copies, range(2))  # loading must replace what this did before
    for p, q in zip(params, copies, strict=True):
        q.assign(p)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    run(optimizer, params, range(5, 9))
    run(other, copies, range(5, 9))
    for p, q in zip(params, copies, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


@pytest.mark.parametrize("norm_type", [0.5, 1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e9, float("inf")])
def test_clipping_by_other_norms_is_torchs(max_norm: float, norm_type: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
    params = parameters()
    set_gradients(params, 0)
    others = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
    for p, q in zip(params, others, strict=True):
        q.grad = torch.tensor(p.grad.numpy())  # type: ignore[union-attr]
    norm = clip_grad_norm_(params, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(others, max_norm, norm_type).item()
    assert isinstance(norm, float) and norm == pytest.approx(expected, rel=1e-12)
    for p, q in zip(params, others, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-11)  # type: ignore[union-attr]


@pytest.mark.parametrize("limit", [0.0, 1e-3, 1.0, 1e9])
def test_clipping_of_values_is_torchs(limit: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
    params = parameters()
    set_gradients(params, 0)
    others = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
    for p, q in zip(params, others, strict=True):
        q.grad = torch.tensor(p.grad.numpy())  # type: ignore[union-attr]
    clip_grad_value_(params, limit)
    torch.nn.utils.clip_grad_value_(others, limit)
    for p, q in zip(params, others, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())  # type: ignore[union-attr]
