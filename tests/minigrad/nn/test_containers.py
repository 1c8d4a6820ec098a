"""Sequential and ModuleList."""

import pytest

import minigrad as mg
from minigrad import Tensor, nn


class Add(nn.Module):
    def __init__(self, amount: float) -> None:
        self.amount = nn.Parameter([amount])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.amount


def test_sequential_applies_in_order() -> None:
    double = type("Double", (nn.Module,), {"forward": lambda self, x: x * 2})()
    assert nn.Sequential(Add(1.0), double)(Tensor([3.0])).tolist() == [8]
    assert nn.Sequential(double, Add(1.0))(Tensor([3.0])).tolist() == [7]
    x = Tensor([3.0])
    assert nn.Sequential()(x) is x


def test_they_are_sequences() -> None:
    layers = [Add(float(i)) for i in range(12)]
    for container in (nn.Sequential(*layers), nn.ModuleList(layers)):
        assert len(container) == 12
        assert list(container) == layers, "10 comes after 9, not after 1"
        assert container[0] is layers[0] and container[-1] is layers[-1]
        extra = Add(99.0)
        container.append(extra)
        assert container[12] is extra and len(container) == 13
        assert [name for name, _ in container.named_parameters()][10:] == [
            *("10.amount", "11.amount", "12.amount")
        ]
        with pytest.raises(IndexError):
            container[13]


def test_gradients_reach_every_layer() -> None:
    model = nn.Sequential(Add(1.0), nn.Sequential(Add(2.0), nn.Tanh()), Add(3.0))
    model(mg.zeros(1)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_module_list_has_no_forward() -> None:
    with pytest.raises(TypeError, match="ModuleList has no forward method"):
        nn.ModuleList([Add(1.0)])(mg.ones(1))
