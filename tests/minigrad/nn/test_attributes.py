"""Parameters and modules cannot get lost from a module without an error."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import minigrad as mg
from minigrad import InPlaceError, Tensor, nn


def linear(seed: int = 0) -> nn.Linear:
    return nn.Linear(3, 2, rng=mg.Generator(seed))


@pytest.mark.parametrize(
    "value",
    [
        lambda layer: layer.weight * 0.5,
        lambda layer: layer.weight.detach(),
        lambda layer: Tensor(np.ones((2, 3))),
        lambda layer: layer.weight.numpy(),
        lambda layer: 3.0,
        lambda layer: [layer.weight],
    ],
)
def test_a_parameter_is_not_replaced_by_something_else(value: Callable[[Any], Any]) -> None:
    layer = linear()
    before = layer.weight
    with pytest.raises(TypeError, match=r"Linear\.weight is a parameter.*vanish.*nn\.Parameter"):
        layer.weight = value(layer)
    with pytest.raises(TypeError, match="weight is a parameter"):
        setattr(layer, "weight", value(layer))  # noqa: B010
    assert layer.weight is before and list(layer.state_dict()) == ["weight", "bias"]


def test_operators_on_a_parameter() -> None:
    layer = linear()
    before, expected = layer.weight, layer.weight.numpy() * 0.5
    with pytest.raises(InPlaceError):
        layer.weight *= 0.5
    with mg.no_grad():
        layer.weight *= 0.5
    assert layer.weight is before
    np.testing.assert_array_equal(layer.weight.numpy(), expected)
    with mg.no_grad(), pytest.raises(TypeError, match="is a parameter"):
        layer.weight = layer.weight * 0.5


def test_what_may_take_the_place_of_a_parameter() -> None:
    layer = linear()
    layer.weight = nn.Parameter(layer.weight * 0.5)
    assert layer.weight.is_leaf and len(layer.parameters()) == 2
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"] and layer(mg.ones((1, 3))).shape == (1, 2)
    layer.bias = nn.Parameter(mg.ones(2))
    assert len(layer.parameters()) == 2
    del layer.weight
    layer.weight = layer.bias * 2  # allowed: some layers compute their weight
    assert list(layer.state_dict()) == ["bias"]


@pytest.mark.parametrize("value", [mg.tanh, 1, mg.ones(2), [nn.Tanh()], lambda x: x])
def test_a_module_is_not_replaced_by_something_else(value: Any) -> None:
    model = nn.Sequential(linear(), nn.Tanh())
    with pytest.raises(TypeError, match=r"Sequential\.1 is a module"):
        setattr(model, "1", value)
    assert len(model) == 2
    setattr(model, "1", nn.ReLU())
    assert isinstance(model[1], nn.ReLU)
    setattr(model, "1", None)
    assert len(model) == 1


class Holder(nn.Module):
    def __init__(self, things: Any) -> None:
        self.things = things
        self.own = nn.Parameter([1.0])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.own


class Pair(NamedTuple):
    first: Any
    second: Any


@pytest.mark.parametrize(
    "hide",
    [
        lambda part: [part],
        lambda part: (part, part),
        lambda part: {"a": part},
        lambda part: {part},
        lambda part: frozenset([part]),
        lambda part: [1, [2, {"x": (part,)}]],
        lambda part: OrderedDict(a=part),
        lambda part: Pair(1, part),
    ],
)
@pytest.mark.parametrize("make", [linear, nn.Tanh, lambda: nn.Parameter([1.0])])
@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.parameters(),
        lambda m: m.state_dict(),
        lambda m: m.load_state_dict({}),
        lambda m: m.num_parameters(),
        lambda m: list(m.modules()),
        lambda m: m.train(),
        lambda m: m.zero_grad(),
        lambda m: m.to("cpu"),
        lambda m: nn.Sequential(m).parameters(),
    ],
)
def test_modules_in_plain_containers_are_refused(hide: Any, make: Any, use: Any) -> None:
    holder = Holder(hide(make()))
    with pytest.raises(TypeError, match=r"Holder\.things is a plain .* holds.*nn\.ModuleList"):
        use(holder)


def test_a_list_that_grows_later_is_seen_as_well() -> None:
    holder = Holder([])
    assert len(holder.parameters()) == 1
    holder.things.append(linear())
    with pytest.raises(TypeError, match=r"nn\.ModuleList"):
        holder.parameters()
    holder.things = nn.ModuleList(holder.things)
    assert list(holder.state_dict()) == ["own", "things.0.weight", "things.0.bias"]


def test_lists_of_what_is_found_anyway_are_fine() -> None:
    layers = [linear(0), linear(1)]
    holder = Holder([layers[0], layers[1].weight])
    holder.body = nn.Sequential(*layers)
    holder.numbers, holder.names = [1.0, 2.0], {"a": "b"}
    assert len(holder.parameters()) == 5
    holder.again = layers[0]
    assert len(holder.parameters()) == 5 and len(holder.state_dict()) == 7
