"""An optimizer's state: groups that grow, copies, saved states, and the memory of gradients."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minigrad import Tensor, nn
from minigrad.nn import Parameter
from minigrad.optim import (
    SGD,
    Adam,
    AdamW,
    CosineAnnealingLR,
    FlatParameters,
    Muon,
    Optimizer,
    RMSprop,
)
from tests.minigrad.optim.problem import parameters, set_gradients

KINDS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda params: SGD(params, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda params: AdamW(params, lr=0.1),
    "muon": lambda params: Muon(params, lr=0.1),
    "adam": lambda params: Adam(params, lr=0.1, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda params: RMSprop(params, lr=0.1, momentum=0.5, centered=True),
}
ALL = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def values(params: list[Any]) -> list[np.ndarray]:
    return [p.numpy().copy() for p in params]


def steps(optimizer: Optimizer, params: list[Any], numbers: range) -> None:
    for number in numbers:
        set_gradients(params, number)
        optimizer.step()


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# Groups that grow


@ALL
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_new_parameter_takes_nobodys_averages(make: Any, by_hand: bool) -> None:
    """The others continue and the new one starts without averages, as with separate optimizers."""
    params = parameters()
    a, b, c = params[:2], params[2:3], params[3:]
    optimizer = make([{"params": a}, {"params": b}])
    steps(optimizer, params, range(3))
    if by_hand:
        optimizer.param_groups[0]["params"].append(c[0])
    else:
        optimizer.add_param_group({"params": c})
    twins = parameters()
    old, new = make([{"params": twins[:2]}, {"params": twins[2:3]}]), make(twins[3:])
    steps(old, twins, range(3))
    for number in range(3, 6):
        set_gradients(params, number)
        set_gradients(twins, number)
        optimizer.step()
        old.step()
        new.step()
    assert_same(values(params), values(twins))


@ALL
@pytest.mark.parametrize("flat", [False, True])
def test_a_parameter_that_leaves_takes_nobodys_averages_along(make: Any, flat: bool) -> None:
    params, twins = parameters(), parameters()
    optimizer, other = make(params), make(twins)
    if flat:
        optimizer.flatten().zero_grad()
    steps(optimizer, params, range(2))
    steps(other, twins, range(2))
    del optimizer.param_groups[0]["params"][0]
    for number in range(2, 4):
        set_gradients(params, number)
        set_gradients(twins, number)
        optimizer.step()
        other.step()
    assert_same(values(params[1:]), values(twins[1:]))
    assert sorted(optimizer.state_dict()["state"]) == [0, 1, 2]


def test_add_param_group_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    params = parameters()
    others = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
    ours = AdamW(params[:2], lr=0.05, weight_decay=0.1)
    theirs = torch.optim.AdamW(others[:2], lr=0.05, weight_decay=0.1)
    for number in range(6):
        if number == 2:
            ours.add_param_group({"params": params[2], "lr": 0.01})
            theirs.add_param_group({"params": others[2], "lr": 0.01})
        if number == 4:
            ours.add_param_group({"params": params[3:], "betas": (0.5, 0.6)})
            theirs.add_param_group({"params": others[3:], "betas": (0.5, 0.6)})
        set_gradients(params, number)
        for p, q in zip(params, others, strict=True):
            q.grad = torch.tensor(p.grad.numpy())
        ours.step()
        theirs.step()
    for p, q in zip(params, others, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12)
    groups = [g["params"] for g in ours.state_dict()["param_groups"]]
    assert groups == [g["params"] for g in theirs.state_dict()["param_groups"]]


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        (lambda p: {"params": p[:1]}, ValueError, "given to the optimizer twice"),
        (lambda p: {"params": p[1]}, ValueError, "given to the optimizer twice"),
        (lambda p: {"params": [p[3], p[3]]}, ValueError, "given to the optimizer twice"),
        (lambda p: {"params": [p[3] * 2]}, ValueError, "results of ops"),
        (lambda p: {"params": [p[3].numpy()]}, TypeError, "not ndarray"),
        (lambda p: {"params": set(p[3:])}, TypeError, "a set has no order"),
        (lambda p: {"params": p[3:], "momentun": 0.1}, ValueError, "unknown setting 'momentun'"),
        (lambda p: {"params": p[3:], "lr": -1}, ValueError, "lr must not be negative"),
        (lambda p: {"params": p[3:], "betas": (1, 2)}, ValueError, "betas"),
        (lambda p: {"lr": 0.1}, ValueError, "no 'params'"),
        (lambda p: p[3:], TypeError, "a group of parameters is a dict, not a list"),
        (lambda p: p[3], TypeError, "a group of parameters is a dict"),
    ],
)
def test_a_bad_group_changes_nothing(group: Any, error: Any, message: str) -> None:
    params = parameters()
    optimizer = AdamW(params[:3])
    with pytest.raises(error, match=message):
        optimizer.add_param_group(group(params))
    assert len(optimizer.param_groups) == 1 and len(optimizer.parameters()) == 3


def test_params_have_an_order() -> None:
    params = parameters()
    for given in (set(params), params[0], {"params": params}):
        with pytest.raises(TypeError, match="parameters come in a list"):
            AdamW(given)
    assert AdamW([{"params": params[0]}]).parameters() == [params[0]]


def test_a_muon_group_is_checked_when_it_is_added() -> None:
    optimizer = Muon([Parameter(np.ones((2, 2)))], orthogonal=True)
    with pytest.raises(ValueError, match=r"shape \(3,\) is no matrix"):
        optimizer.add_param_group({"params": [Parameter(np.ones(3))]})
    optimizer.add_param_group({"params": [Parameter(np.ones(3))], "orthogonal": False})
    assert [g["orthogonal"] for g in optimizer.param_groups] == [True, False]


def test_a_schedule_takes_on_a_new_group() -> None:
    params = parameters()
    optimizer = AdamW(params[:2], lr=1.0)
    schedule = CosineAnnealingLR(optimizer, 4)
    schedule.step()
    optimizer.add_param_group({"params": params[2:], "lr": 0.5})
    schedule.step()
    assert schedule.get_last_lr() == [pytest.approx(0.5), pytest.approx(0.25)]


# Copies


@ALL
@pytest.mark.parametrize("flat", [False, True])
def test_a_deep_copy_goes_its_own_way(make: Any, flat: bool) -> None:
    params = parameters()
    optimizer = make(params)
    memory = optimizer.flatten() if flat else None
    for number in range(3):
        if memory is not None:
            memory.zero_grad()
        set_gradients(params, number)
        optimizer.step()
    twin = copy.deepcopy(optimizer)
    twins = twin.parameters()
    before, state_before = values(params), optimizer.state_dict()
    steps(twin, twins, range(3, 6))
    assert_same(values(params), before)
    for number, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            np.testing.assert_array_equal(value, state_before["state"][number][key])
    steps(optimizer, params, range(3, 6))
    assert_same(values(twins), values(params))
    ours, copied = optimizer.state_dict()["state"], twin.state_dict()["state"]
    for number in ours:
        for key in ours[number]:
            np.testing.assert_array_equal(ours[number][key], copied[number][key])


def test_a_model_its_flat_memory_and_its_optimizer_are_copied_together() -> None:
    params = parameters()
    optimizer = AdamW(params)
    flat = optimizer.flatten()
    flat.zero_grad()
    set_gradients(params, 0)
    optimizer.step()
    memory, twin = copy.deepcopy((flat, optimizer))
    assert all(p is q for p, q in zip(memory.parameters, twin.parameters(), strict=True))
    assert all(np.shares_memory(p.data, memory.data) for p in twin.parameters())
    assert not np.shares_memory(memory.data, flat.data)
    np.testing.assert_array_equal(memory.data, flat.data)
    np.testing.assert_array_equal(
        memory.grad, np.concatenate([p.grad.numpy().reshape(-1) for p in params])
    )
    steps(twin, twin.parameters(), range(1, 3))
    steps(optimizer, params, range(1, 3))
    np.testing.assert_array_equal(memory.data, flat.data)


@ALL
def test_a_pickled_optimizer_goes_on(make: Any) -> None:
    params = parameters()
    optimizer = make(params)
    steps(optimizer, params, range(2))
    twin = pickle.loads(pickle.dumps(optimizer))
    steps(optimizer, params, range(2, 4))
    steps(twin, twin.parameters(), range(2, 4))
    assert_same(values(twin.parameters()), values(params))


# Gradients' memory


@pytest.mark.parametrize("make", [SGD, AdamW, Muon])
@pytest.mark.parametrize("flat", [False, True])
def test_forgotten_gradients_are_free(make: Any, flat: bool) -> None:
    layer = nn.Linear(30, 20, rng=nn.layers.Generator(0))
    params = layer.parameters()
    optimizer = make(params, lr=0.1)
    memory = optimizer.flatten() if flat else None
    for forget in (optimizer.zero_grad, layer.zero_grad):
        if memory is not None:
            memory.zero_grad()
        layer(Tensor(np.ones((2, 30), np.float32))).sum().backward()
        optimizer.step()
        owners = [p.grad.data if p.grad.data.base is None else p.grad.data.base for p in params]
        alive = [weakref.ref(owner) for owner in owners]
        del owners
        forget()
        gc.collect(1)
        assert all(p.grad is None for p in params)
        assert not any(reference() is not None for reference in alive)


def test_flat_gradients_come_back_as_zeros() -> None:
    params = parameters()
    flat = FlatParameters(params)
    flat.grad[...] = 3  # before gradients are attached
    flat.attach_grad()
    assert all((p.grad.numpy() == 3).all() for p in params)
    flat.grad *= 2
    assert (flat.grad == 6).all() and (params[0].grad.numpy() == 6).all()
    SGD(params).zero_grad()
    assert not flat.grad.any()
    with pytest.raises(ValueError, match=r"write to flat\.grad\[\.\.\.\]"):
        flat.grad = np.zeros(len(flat.grad))
    given = np.ones_like(flat.data)
    kept = FlatParameters(params, grad=given)
    kept.attach_grad()
    SGD(params).zero_grad()
    assert kept.grad is given


# Saved states


def entries_of(optimizer: Optimizer) -> Any:
    return copy.deepcopy(optimizer.state_dict())


@ALL
def test_a_saved_state_goes_on_by_order(make: Any) -> None:
    params = parameters()
    optimizer = make([{"params": params[:2]}, {"params": params[2:]}])
    steps(optimizer, params, range(2))
    optimizer.param_groups[0]["params"].append(optimizer.param_groups[1]["params"].pop())
    others = [Parameter(p.numpy().copy()) for p in params]
    twin = make([{"params": [*others[:2], others[3]]}, {"params": others[2:3]}])
    twin.load_state_dict(optimizer.state_dict())
    steps(optimizer, params, range(2, 4))
    steps(twin, others, range(2, 4))
    assert_same(values(others), values(params))


def test_a_state_of_pytorch_goes_on() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    for ours_kind, theirs_kind, settings in (
        (AdamW, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (SGD, torch.optim.SGD, {"lr": 0.1}),
    ):
        params = parameters()
        others = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
        theirs, ours = theirs_kind(others, **settings), ours_kind(params, **settings)
        for number in range(6):
            if number == 3:
                saved = theirs.state_dict()
                saved["state"] = {
                    n: {k: None if v is None else v.numpy() for k, v in entry.items()}
                    for n, entry in saved["state"].items()
                }
                ours.load_state_dict(saved)
                for p, q in zip(params, others, strict=True):
                    p.assign(q.detach().numpy())
            set_gradients(params, number)
            for p, q in zip(params, others, strict=True):
                q.grad = torch.tensor(p.grad.numpy())
            theirs.step()
            if number >= 3:
                ours.step()
        for p, q in zip(params, others, strict=True):
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12)


def changed(saved: Any, change: Callable[[Any], Any]) -> Any:
    saved = copy.deepcopy(saved)
    change(saved)
    return saved


@pytest.mark.parametrize("own", KINDS)
@pytest.mark.parametrize("other", ["sgd", "adamw", "muon", "plain sgd", "orthogonal"])
@pytest.mark.parametrize("stepped", [False, True])
def test_a_state_of_another_kind_changes_nothing(own: str, other: str, stepped: bool) -> None:
    if own == other:
        return
    matrices = [Parameter(np.ones((2, 2))), Parameter(np.ones((4, 2)))]
    kinds: dict[str, Any] = {
        **KINDS,
        "plain sgd": lambda params: SGD(params, lr=0.3),
        "orthogonal": lambda params: Muon(params, lr=0.3, orthogonal=True),
    }
    if {own, other} in ({"sgd", "plain sgd"}, {"adam", "adamw"}) or (own, other, stepped) == (
        "muon",
        "orthogonal",
        False,
    ):
        return  # the same kind of optimizer, with other settings
    theirs, ours = kinds[other](matrices), kinds[own](matrices)
    for p in matrices:
        p.grad = Tensor(np.full(p.shape, 0.5) + np.eye(*p.shape))
    if stepped:
        theirs.step()
    ours.step()
    if (own, other) == ("muon", "orthogonal"):
        ours.param_groups[0]["lr"] = 0.7
    before = entries_of(ours)
    saved = entries_of(theirs)
    if (own, other) == ("muon", "orthogonal"):
        saved["param_groups"][0]["orthogonal"] = False
    with pytest.raises(ValueError, match="another kind of optimizer"):
        ours.load_state_dict(saved)
    assert_states_equal(entries_of(ours), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("state"), "no 'state'"),
        (lambda s: s.pop("param_groups"), "no 'param_groups'"),
        (lambda s: s["param_groups"].append({"params": []}), "groups of"),
        (lambda s: s["param_groups"][0]["params"].pop(), "groups of"),
        (lambda s: s["param_groups"][0].update(lr=-1.0), "lr must not be negative"),
        (lambda s: s["param_groups"][0].update(betas=(0.9, 1.5)), "betas"),
        (lambda s: s["param_groups"][0].update(amsgrad=True), "another kind"),
        (lambda s: s["param_groups"][0].update(centered=True), "no setting 'centered'"),
        (lambda s: s["param_groups"][0].pop("eps"), "no 'eps'"),
        (lambda s: s["state"].update({9: s["state"][0]}), "of parameter 9"),
        (lambda s: s["state"][3].pop("exp_avg"), "another kind"),
        (lambda s: s["state"][3].update(max_exp_avg_sq=np.zeros(1)), "another kind"),
        (lambda s: s["state"][3].update(exp_avg=np.zeros(77)), r"shape \(77,\)"),
        (lambda s: s["state"][3].update(exp_avg=np.array("text")), "no numbers"),
        (lambda s: s["state"][3].update(step=-1), "no count"),
        (lambda s: s["state"][3].update(step=1.5), "no count"),
        (lambda s: s["state"][3].update(step=np.zeros(2)), "no count"),
        (lambda s: s["state"][3].update(step="many"), "no count"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change: Any, message: str) -> None:
    params = parameters()
    optimizer = AdamW(params, lr=0.1)
    steps(optimizer, params, range(2))
    before = entries_of(optimizer)
    other = changed(before, lambda s: s["param_groups"][0].update(lr=0.5))
    other["state"][0]["step"] = 50
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(changed(other, change))
    assert_states_equal(entries_of(optimizer), before)


def assert_states_equal(found: Any, expected: Any) -> None:
    assert found["param_groups"] == expected["param_groups"]
    assert sorted(found["state"]) == sorted(expected["state"])
    for number, entry in expected["state"].items():
        assert sorted(found["state"][number]) == sorted(entry)
        for key, value in entry.items():
            np.testing.assert_array_equal(found["state"][number][key], value)


def test_steps_may_be_arrays_and_numbers_text() -> None:
    """PyTorch saves steps as tensors, and JSON's keys are text."""
    params = parameters()
    optimizer = AdamW(params)
    steps(optimizer, params, range(2))
    saved = entries_of(optimizer)
    for entry in saved["state"].values():
        entry["step"] = np.array(2.0, np.float32)
        entry["exp_avg"] = Tensor(entry["exp_avg"])
    saved["state"] = {str(k): v for k, v in saved["state"].items()}
    optimizer.load_state_dict(saved)
    assert optimizer.state[params[0]]["step"] == 2
    assert type(optimizer.state[params[0]]["step"]) is int


def test_gradients_that_were_given_other_arrays_come_home_when_they_are_attached() -> None:
    params = parameters()
    size = sum(p.size for p in params)
    flat = FlatParameters(params, grad=np.zeros(size, params[0].dtype))
    flat.zero_grad()
    first = params[0].grad
    first.data = np.ones(first.shape, first.dtype)
    params[1].grad = None
    flat.grad[...] = 7
    flat.attach_grad()
    assert all((p.grad.numpy() == 7).all() for p in params)
    assert params[0].grad is not first


@ALL
@pytest.mark.parametrize("flat", [False, True])
def test_what_a_state_does_not_hold_starts_anew(make: Any, flat: bool) -> None:
    """Its averages are as in an optimizer without steps; earlier ones are dropped."""
    params, others = parameters(), parameters()
    optimizer, other = make(params), make(others)
    if flat:
        optimizer.flatten().zero_grad()
    fresh = optimizer.state_dict()
    steps(optimizer, params, range(3))
    optimizer.load_state_dict({**fresh, "state": {}})
    for p, q in zip(params, others, strict=True):
        q.assign(p)
    steps(optimizer, params, range(3, 5))
    steps(other, others, range(3, 5))
    assert_same(values(params), values(others))
