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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(Add(1.0), nn.functional.relu), r"function .* nn\.ReLU\(\)"),
        (lambda: nn.Sequential(mg.tanh, Add(1.0)), r"nn\.ReLU\(\)"),
        (lambda: nn.Sequential(lambda x: x), "function"),
        (lambda: nn.Sequential([Add(1.0), Add(2.0)]), r"list .*Sequential\(\*layers\)"),
        (lambda: nn.Sequential((Add(1.0),)), r"tuple .*Sequential\(\*layers\)"),
        (lambda: nn.Sequential({"a": Add(1.0)}), "dict"),
        (lambda: nn.Sequential(Add(i) for i in range(3)), "generator"),
        (lambda: nn.Sequential(nn.Tanh), r"call it: Tanh\("),
        (lambda: nn.Sequential(None), "NoneType"),
        (lambda: nn.Sequential(mg.ones(2)), "Tensor"),
        (lambda: nn.Sequential(nn.Parameter([1.0])), "Parameter"),
        (lambda: nn.ModuleList([Add(1.0), mg.tanh]), "function"),
        (lambda: nn.ModuleList([[Add(1.0)]]), "one list of modules"),
        (lambda: nn.ModuleList("ab"), "str"),
        (lambda: nn.ModuleList(Add(1.0)), "not iterable"),
        (lambda: nn.ModuleList().append(3), "int"),
        (lambda: nn.ModuleList().extend([Add(1.0), None]), "NoneType"),
        (lambda: nn.ModuleList().insert(0, mg.tanh), "function"),
        (lambda: nn.ModuleList([Add(1.0)]).__setitem__(0, None), "NoneType"),
    ],
)
def test_what_is_no_module_is_refused(make, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_nothing_is_added_by_an_error() -> None:
    layers = nn.ModuleList([Add(1.0)])
    with pytest.raises(TypeError):
        layers.extend([Add(2.0), mg.tanh])
    assert len(layers) == 1


@pytest.mark.parametrize("kind", [nn.Sequential, nn.ModuleList])
def test_lists_operations(kind: type) -> None:
    a, b, c, d = (Add(float(i)) for i in range(4))
    layers = kind()
    layers.extend([a, b])
    layers += [c]
    assert list(layers) == [a, b, c] and isinstance(layers, kind) and b in layers
    layers[1] = d
    assert list(layers) == [a, d, c] and len(layers.parameters()) == 3
    layers[-1] = b
    layers.insert(0, c)
    assert list(layers) == [c, a, d, b]
    assert list(layers.state_dict()) == [f"{i}.amount" for i in range(4)]
    del layers[1]
    del layers[-1:]
    assert list(layers) == [c, d] and list(layers.state_dict()) == ["0.amount", "1.amount"]
    layers.append(a)
    part = layers[1:]
    assert type(part) is kind and list(part) == [d, a]
    with pytest.raises(IndexError):
        layers[7] = a
    with pytest.raises(IndexError):
        del layers[7]
    delattr(layers, "0")
    layers.append(b)
    assert list(layers) == [d, a, b], "the new one takes nobody's name"


def test_a_slice_of_sequential_runs() -> None:
    model = nn.Sequential(Add(1.0), Add(2.0), Add(3.0))
    assert model[1:](Tensor([0.0])).tolist() == [5]
