"""Buffers and hooks of modules, and functions on the whole tree of modules."""

import copy
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn


class Counting(nn.Module):
    """A layer that counts its calls in a buffer, and has a table that is not saved."""

    def __init__(self) -> None:
        self.linear = nn.Linear(2, 3, rng=mg.Generator(0))
        self.register_buffer("calls", mg.zeros((), "int64"))
        self.constant = mg.ones(3)
        self.register_buffer("table", mg.ones(4), persistent=False)
        self.nothing = None

    def forward(self, x: mg.Tensor) -> mg.Tensor:
        self.calls.assign(self.calls.numpy() + 1)
        return self.linear(x)


def test_buffers_are_saved_and_moved_but_not_trained() -> None:
    layer = nn.Sequential(Counting())
    layer(mg.ones((1, 2)))
    assert [name for name, _ in layer.named_parameters()] == ["0.linear.weight", "0.linear.bias"]
    assert [name for name, _ in layer.named_buffers()] == ["0.calls", "0.table"]
    assert len(layer.buffers()) == 2
    state = layer.state_dict()
    assert list(state) == ["0.calls", "0.linear.weight", "0.linear.bias"]
    assert state["0.calls"] == 1
    other = nn.Sequential(Counting())
    other.load_state_dict(state)
    assert other[0].calls.item() == 1
    with pytest.raises(ValueError, match=r"missing: 0\.calls \(\)"):
        other.load_state_dict({k: v for k, v in state.items() if "calls" not in k})
    layer.astype("float64")
    assert layer[0].constant.dtype == np.float64  # moved, but not saved
    assert layer[0].table.dtype == np.float64 and layer[0].calls.dtype == np.int64


def test_a_shared_buffer_comes_once_and_is_saved_under_each_name() -> None:
    a, b = nn.Identity(), nn.Identity()
    mean = mg.ones(2)
    a.register_buffer("mean", mean)
    b.register_buffer("mean", mean)
    both = nn.Sequential(a, b)
    assert [name for name, _ in both.named_buffers()] == ["0.mean"]
    assert list(both.state_dict()) == ["0.mean", "1.mean"]


def test_a_buffer_can_become_one_that_is_saved() -> None:
    layer = Counting()
    layer.register_buffer("table", mg.zeros(2))
    assert "table" in layer.state_dict()
    layer.register_buffer("late", None)
    layer.late = mg.ones(1)
    assert "late" in layer.state_dict()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m: m.register_buffer("x", np.ones(2)),
            TypeError,
            "must be a Tensor .* not ndarray",
        ),
        (lambda m: m.register_buffer("x", nn.Parameter([1.0])), TypeError, "not Parameter"),
        (lambda m: m.register_buffer("linear", mg.ones(1)), KeyError, "'linear' that is no buffer"),
        (lambda m: m.register_buffer("forward", mg.ones(1)), KeyError, "'forward' that is no"),
    ],
)
def test_what_is_no_buffer(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(Counting())


def test_hooks_see_and_change_results_until_they_are_removed() -> None:
    layer, seen = nn.Identity(), []
    see = layer.register_forward_hook(lambda module, args, y: seen.append((module, args, y)))
    double = layer.register_forward_hook(lambda module, args, y: 2 * y)
    x = mg.ones(2)
    assert layer(x).tolist() == [2, 2]
    assert seen == [(layer, (x,), x)]
    double()
    assert layer(x).tolist() == [1, 1]
    see()
    see()  # a second call does nothing
    layer(x)
    assert len(seen) == 2
    assert nn.Identity()(x) is x  # other modules have no hooks


def test_hooks_run_under_detect_nan_as_well() -> None:
    layer = nn.Identity()
    layer.register_forward_hook(lambda module, args, y: y + 1)
    with mg.detect_nan():
        assert layer(mg.ones(1)).item() == 2


def test_apply_visits_children_first() -> None:
    model, names = nn.Sequential(nn.Identity(), nn.Sequential(nn.Flatten())), []
    assert model.apply(lambda module: names.append(type(module).__name__)) is model
    assert names == ["Identity", "Flatten", "Sequential", "Sequential"]


def test_freezing() -> None:
    model = nn.Sequential(nn.Linear(2, 2, rng=mg.Generator(0)))
    assert model.requires_grad_(False) is model
    assert not any(p.requires_grad for p in model.parameters())
    assert model.requires_grad_().parameters()[0].requires_grad


def test_a_copy_has_buffers_of_its_own() -> None:
    layer = Counting()
    twin = copy.deepcopy(layer)
    layer(mg.ones((1, 2)))
    assert (layer.calls.item(), twin.calls.item()) == (1, 0)
    assert "table" not in twin.state_dict()


def test_module_dict() -> None:
    heads = nn.ModuleDict({"mean": nn.Linear(2, 1, rng=mg.Generator(0)), "none": nn.Identity()})
    assert heads.keys() == ["mean", "none"] == list(heads)
    assert [name for name, _ in heads.items()] == list(heads)
    assert heads.values()[1] is heads["none"]
    assert "mean" in heads and "forward" not in heads and 3 not in heads
    assert list(heads.state_dict()) == ["mean.weight", "mean.bias"]
    heads["none"] = nn.Flatten()
    del heads["mean"]
    assert len(heads) == 1
    with pytest.raises(KeyError, match=r"ModuleDict has no 'mean'; it has \['none'\]"):
        heads["mean"]
    with pytest.raises(KeyError, match="has no 'mean'"):
        del heads["mean"]
    with pytest.raises(TypeError, match="holds modules"):
        heads["x"] = 3  # type: ignore[assignment]
    for name in ("", "a.b", "keys", "training"):
        with pytest.raises(KeyError, match="cannot be the name of a module"):
            heads[name] = nn.Identity()


def test_identity_and_flatten() -> None:
    x = mg.Tensor(np.arange(24.0).reshape(2, 3, 4))
    assert nn.Identity()(x) is x
    assert nn.Flatten()(x).shape == (2, 12)
    assert nn.Flatten(0, 1)(x).shape == (6, 4)
    assert nn.Flatten(-2)(x).shape == (2, 12)
    assert nn.Flatten(1, 1)(x).shape == (2, 3, 4)
    assert np.array_equal(nn.Flatten()(x).numpy(), x.numpy().reshape(2, 12))
    assert nn.Flatten()(mg.ones((0, 3, 2))).shape == (0, 6)
    assert repr(nn.Flatten()) == "Flatten(1 to -1)"
    for bad in (nn.Flatten(3), nn.Flatten(2, 1)):
        with pytest.raises(mg.ShapeError, match=r"Flatten: x of shape \(2, 3, 4\) has no axes"):
            bad(x)
