"""Compares AdamW with PyTorch's, with flat memory and without."""

import json
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, nn
from minigrad.ops.updates.adamw import adamw
from minigrad.optim import AdamW
from tests.minigrad.optim.problem import (
    SHAPES,
    assert_equal_to_torch,
    parameters,
    run,
    set_gradients,
)

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "betas": {"lr": 0.01, "betas": (0.8, 0.95)},
    "no averaging": {"lr": 0.01, "betas": (0.0, 0.0)},
    "decay": {"lr": 0.02, "weight_decay": 0.3},
    "no decay": {"lr": 0.01, "weight_decay": 0.0},
    "eps": {"lr": 0.01, "eps": 1e-2},
}


@pytest.mark.parametrize("context", [mg.enable_grad, mg.textbook])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("label", SETTINGS)
def test_equal_to_torch_over_100_steps(label: str, flat: bool, context: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    settings = SETTINGS[label]
    with context():
        assert_equal_to_torch(
            lambda p: AdamW(p, **settings), lambda p: torch.optim.AdamW(p, **settings), flat=flat
        )


@pytest.mark.parametrize("flat", [False, True])
def test_groups_have_settings_of_their_own(flat: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")

    def groups(p: list[Any]) -> list[dict[str, Any]]:
        return [
            {"params": p[:2], "weight_decay": 0.0, "lr": 0.1},
            {"params": p[2:], "betas": (0.5, 0.9), "eps": 1e-4},
        ]

    assert_equal_to_torch(
        lambda p: AdamW(groups(p), lr=0.01),
        lambda p: torch.optim.AdamW(groups(p), lr=0.01),
        flat=flat,
    )


def test_a_parameter_that_gets_its_first_gradient_late() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    params = parameters()
    others = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
    ours, theirs = AdamW(params, lr=0.01), torch.optim.AdamW(others, lr=0.01)
    for step in range(20):
        set_gradients(params, step)
        if step < 7:
            params[1].grad = None
        for p, q in zip(params, others, strict=True):
            q.grad = None if p.grad is None else torch.tensor(p.grad.numpy())
        ours.step()
        theirs.step()
    for p, q in zip(params, others, strict=True):
        assert np.allclose(p.numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_parameters_of_two_dtypes_in_one_group() -> None:
    """Each parameter's averages have the parameter's precision."""
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    params = [nn.Parameter(np.ones(3, np.float32)), nn.Parameter(np.ones(3))]
    others = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
    ours, theirs = AdamW(params, lr=0.01), torch.optim.AdamW(others, lr=0.01)
    rng = np.random.default_rng(0)
    for _ in range(50):
        for p, q in zip(params, others, strict=True):
            g = rng.standard_normal(3).astype(p.dtype)
            p.grad, q.grad = Tensor(g), torch.tensor(g)
        ours.step()
        theirs.step()
    assert np.abs(params[0].numpy() - others[0].detach().numpy()).max() < 1e-6
    assert np.abs(params[1].numpy() - others[1].detach().numpy()).max() < 1e-13


def test_parameters_that_are_not_contiguous() -> None:
    params = parameters()
    views = [nn.Parameter(np.array(p.numpy(), order="F")) for p in params]
    run(AdamW(params, lr=0.01), params, range(10))
    run(AdamW(views, lr=0.01), views, range(10))
    for p, q in zip(params, views, strict=True):
        assert np.allclose(p.numpy(), q.numpy(), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flat_and_not_flat_are_equal(dtype: Any) -> None:
    plain, flat = parameters(dtype), parameters(dtype)
    optimizer = AdamW(flat, lr=0.01)
    optimizer.flatten().zero_grad()
    run(AdamW(plain, lr=0.01), plain, range(30))
    run(optimizer, flat, range(30))
    for p, q in zip(plain, flat, strict=True):
        assert np.array_equal(p.numpy(), q.numpy())


def count_kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    kernel = adamw.kernels["cpu"]

    def counted(param: np.ndarray, *args: Any, **kwargs: Any) -> None:
        sizes.append(param.size)
        kernel(param, *args, **kwargs)

    monkeypatch.setitem(adamw.kernels, "cpu", counted)
    return sizes


def test_adjacent_memory_is_updated_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = count_kernel_calls(monkeypatch)
    params = parameters()
    optimizer = AdamW(params)
    optimizer.flatten().zero_grad()
    total = sum(p.size for p in params)
    run(optimizer, params, range(2))
    assert sizes == [total, total]
    sizes.clear()
    groups = AdamW([{"params": params[:2]}, {"params": params[2:], "lr": 0.1}])
    groups.flatten().zero_grad()
    run(groups, params, range(1))
    assert sizes == [sum(p.size for p in params[:2]), sum(p.size for p in params[2:])]


def test_scattered_memory_is_updated_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = count_kernel_calls(monkeypatch)
    params = parameters()
    run(AdamW(params), params, range(1))
    assert sizes == [p.size for p in params]
    sizes.clear()
    flat = parameters()
    optimizer = AdamW(flat)
    optimizer.flatten().zero_grad()
    flat[1].grad = None  # a gap in the gradients
    for p in (flat[0], flat[2], flat[3]):
        assert p.grad is not None
        p.grad.data[...] = 1
    optimizer.step()
    assert sizes == [flat[0].size, flat[2].size + flat[3].size], "neighbours are one call"


# State


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("through_json", [False, True])
def test_a_state_goes_on_bit_for_bit(flat: bool, through_json: bool) -> None:
    params = parameters()
    optimizer = AdamW(params, lr=0.01, betas=(0.8, 0.9))
    run(optimizer, params, range(5))
    state = optimizer.state_dict()
    if through_json:  # as a checkpoint does: numbers in JSON, arrays beside it
        arrays = {n: {k: v for k, v in e.items() if k != "step"} for n, e in state["state"].items()}
        steps = {n: e["step"] for n, e in state["state"].items()}
        plain = json.loads(json.dumps({"steps": steps, "groups": state["param_groups"]}))
        state = {
            "state": {n: {**arrays[int(n)], "step": s} for n, s in plain["steps"].items()},
            "param_groups": plain["groups"],
        }
    copies = parameters()
    for p, q in zip(params, copies, strict=True):
        q.assign(p)
    other = AdamW(copies, lr=5.0)
    if flat:
        other.flatten().zero_grad()
    run(other, copies, range(1))  # loading must replace what this did before
    for p, q in zip(params, copies, strict=True):
        q.assign(p)
    other.load_state_dict(state)
    run(optimizer, params, range(5, 12))
    run(other, copies, range(5, 12))
    for p, q in zip(params, copies, strict=True):
        assert np.array_equal(p.numpy(), q.numpy())


def test_a_state_has_torchs_form_and_is_a_copy() -> None:
    params = parameters()
    optimizer = AdamW([{"params": params[:1]}, {"params": params[1:], "lr": 1.0}], lr=0.01)
    run(optimizer, params, range(1))
    state = optimizer.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0], [1, 2, 3]]
    assert [group["lr"] for group in state["param_groups"]] == [0.01, 1.0]
    assert list(state["state"]) == [0, 1, 2, 3]
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert [state["state"][i]["exp_avg"].shape for i in range(4)] == SHAPES
    before = state["state"][0]["exp_avg"].copy()
    run(optimizer, params, range(1, 2))
    assert np.array_equal(state["state"][0]["exp_avg"], before)


def test_a_state_of_other_parameters() -> None:
    params = parameters()
    optimizer = AdamW(params)
    run(optimizer, params, range(1))
    with pytest.raises(ValueError, match=r"groups of \[4\] parameters, this one of \[3\]"):
        AdamW(params[:3]).load_state_dict(optimizer.state_dict())
    with pytest.raises(
        ValueError, match=r"saved 'exp_avg' of parameter 0 has shape \(3, 4\), the parameter \(4,\)"
    ):
        AdamW([params[1], params[0], *params[2:]]).load_state_dict(optimizer.state_dict())
    state = optimizer.state_dict()
    state["state"][9] = state["state"][0]
    with pytest.raises(ValueError, match="state of parameter 9, this one has 4"):
        AdamW(params).load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "AdamW: lr must not be negative"),
        ({"eps": -1.0}, "AdamW: eps must not be negative"),
        ({"weight_decay": -1.0}, "AdamW: weight_decay must not be negative"),
        ({"betas": (1.0, 0.9)}, r"AdamW: betas must be in \[0, 1\), not \(1.0, 0.9\)"),
        ({"betas": (0.9, -0.1)}, r"AdamW: betas must be in"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdamW(parameters(), **settings)
    with pytest.raises(ValueError, match=message):
        AdamW([{"params": parameters(), **settings}])


def test_averages_can_be_moved_in_the_middle_of_a_run(rng):
    gradients = rng.standard_normal((4, 2, 3))
    weights = []
    for moved in (False, True):
        parameter = nn.Parameter(np.ones((2, 3)))
        optimizer = AdamW([parameter], lr=0.1)
        for number, gradient in enumerate(gradients):
            if moved and number == 2:
                optimizer.flatten(zeros=np.zeros)
            parameter.grad = Tensor(gradient)
            optimizer.step()
        weights.append(parameter.numpy())
    np.testing.assert_array_equal(*weights)


def test_averages_lie_in_the_memory_that_is_given() -> None:
    params, given = parameters(), []

    def allocate(size: int, dtype: Any) -> np.ndarray:
        given.append(np.zeros(size, dtype))
        return given[-1]

    optimizer = AdamW([{"params": params[:2]}, {"params": params[2:]}])
    optimizer.flatten(zeros=allocate)
    run(optimizer, params, range(1))
    sizes = [sum(p.size for p in group) for group in (params[:2], params[2:])]
    assert [array.size for array in given] == [size for size in sizes for _ in range(2)]
    assert all(array.any() for array in given)
