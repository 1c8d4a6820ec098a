"""Module: the tree of parameters, its state, and how it is printed."""

import copy
import weakref
from collections import UserList, deque
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, nn
from minigrad.nn import Module, Parameter


class Leaf(Module):
    def __init__(self, value: float) -> None:
        self.scale = Parameter([value])
        self.constant = Tensor([7.0])
        self.name = "leaf"

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Tree(Module):
    """A module with parameters and modules; one parameter is in two places."""

    def __init__(self) -> None:
        self.first = Parameter(np.zeros((2, 3), np.float32))
        self.child = Leaf(1.0)
        self.second = Parameter([5.0, 6.0])
        self.children_list = nn.ModuleList([Leaf(2.0), Leaf(3.0)])
        self.tied = self.child.scale


NAMES = [
    *("first", "second", "tied"),
    *("child.scale", "children_list.0.scale", "children_list.1.scale"),
]


def test_parameters_come_in_order_of_definition() -> None:
    rng = mg.Generator(0)
    model = nn.Sequential(nn.Linear(2, 3, rng=rng), nn.LayerNorm(3), nn.Linear(3, 1, rng=rng))
    assert [name for name, _ in model.named_parameters()] == [
        *("0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias")
    ]


def test_a_shared_parameter_comes_once_but_is_stored_under_each_name() -> None:
    tree = Tree()
    names = [name for name, _ in tree.named_parameters()]
    assert names == [name for name in NAMES if name != "child.scale"]
    assert len(tree.parameters()) == len({id(p) for p in tree.parameters()}) == 5
    assert list(tree.state_dict()) == NAMES
    assert tree.num_parameters() == 6 + 2 + 1 + 1 + 1


def test_plain_tensors_and_other_attributes_are_no_parameters() -> None:
    assert [name for name, _ in Leaf(1.0).named_parameters()] == ["scale"]


def test_the_tree_of_modules() -> None:
    tree = Tree()
    assert [name for name, _ in tree.named_modules()] == [
        *("", "child", "children_list", "children_list.0", "children_list.1")
    ]
    assert [name for name, _ in tree.named_children()] == ["child", "children_list"]
    assert [type(m).__name__ for m in tree.modules()] == [
        *("Tree", "Leaf", "ModuleList", "Leaf", "Leaf")
    ]


def test_an_attribute_that_is_replaced_or_deleted() -> None:
    tree = Tree()
    tree.child = Leaf(9.0)
    del tree.second
    names = [name for name, _ in tree.named_parameters()]
    assert names[:3] == ["first", "tied", "child.scale"]


# State


def test_state_goes_round() -> None:
    first, second = Tree(), Tree()
    for i, p in enumerate(first.parameters()):
        p.assign(np.full(p.shape, float(i)))
    second.load_state_dict(first.state_dict())
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert np.array_equal(p.numpy(), q.numpy()) and not np.shares_memory(p.data, q.data)


def test_state_is_a_copy() -> None:
    tree = Tree()
    state = tree.state_dict()
    state["first"][...] = 99
    assert (tree.first.numpy() == 0).all()


def test_loading_keeps_dtype_and_memory_and_takes_tensors() -> None:
    leaf = Leaf(1.0)
    memory = leaf.scale.data
    for value in (np.array([2.0]), Tensor([2.0]), np.array([2], np.int8)):
        leaf.load_state_dict({"scale": value})
        assert leaf.scale.data is memory and leaf.scale.dtype == np.float32
        assert leaf.scale.tolist() == [2]


def test_loading_torch_tensors() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    theirs = torch.nn.Linear(3, 2)
    ours = nn.Linear(3, 2, rng=mg.Generator(0))
    ours.load_state_dict({k: v.detach() for k, v in theirs.state_dict().items()})
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = theirs(torch.tensor(x)).detach().numpy()
    assert np.allclose(ours(Tensor(x)).numpy(), expected, rtol=1e-6, atol=1e-6)


def test_every_problem_of_a_state_is_named_and_nothing_is_changed() -> None:
    tree = Tree()
    before = tree.state_dict()
    state: dict[str, Any] = {name: array + 1 for name, array in before.items()}
    del state["second"], state["child.scale"]
    state["first"] = np.zeros((3, 2))
    state["children_list.0.scale"] = np.zeros(())
    state["extra"] = state["other.extra"] = np.zeros(1)
    with pytest.raises(ValueError) as error:
        tree.load_state_dict(state)
    message = str(error.value)
    assert message.startswith("the state does not fit Tree:")
    for line in (
        "missing: second (2,)",
        "missing: child.scale (1,)",
        "unexpected: extra",
        "unexpected: other.extra",
        "wrong shape: first is (2, 3) here, (3, 2) in the state",
        "wrong shape: children_list.0.scale is (1,) here, () in the state",
    ):
        assert line in message
    assert message.count("\n") == 6
    for name, array in tree.state_dict().items():
        assert np.array_equal(array, before[name])


def test_values_that_are_no_arrays_change_nothing() -> None:
    tree = Tree()
    before = tree.state_dict()
    bad = {**{name: array + 1 for name, array in before.items()}, "children_list.1.scale": "text"}
    with pytest.raises(ValueError, match=r"children_list\.1\.scale"):
        tree.load_state_dict(bad)
    for name, array in tree.state_dict().items():
        assert np.array_equal(array, before[name])


# Switches


def test_train_and_eval_reach_every_module() -> None:
    tree = Tree()
    assert all(m.training for m in tree.modules())
    assert tree.eval() is tree and not any(m.training for m in tree.modules())
    assert tree.train() is tree and all(m.training for m in tree.modules())
    tree.child.eval()
    assert tree.training and not tree.child.training


def test_astype_converts_floats_and_gradients_in_place() -> None:
    leaf = Leaf(2.0)
    leaf.ids = Tensor([1, 2])  # type: ignore[attr-defined]
    (leaf(mg.ones(1))).sum().backward()
    parameter = leaf.scale
    assert leaf.astype("float64") is leaf and leaf.scale is parameter
    assert parameter.dtype == np.float64 and parameter.requires_grad
    assert parameter.grad is not None and parameter.grad.dtype == np.float64
    assert leaf.constant.dtype == np.float64
    assert leaf.ids.dtype == np.int64  # type: ignore[attr-defined]
    assert leaf.to("cpu") is leaf


def test_to_moves_integers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf, moved = Leaf(2.0), []
    leaf.ids = Tensor([1, 2])  # type: ignore[attr-defined]

    def asarray(device: mg.Device, array: Any) -> Any:
        moved.append(array.dtype.kind)
        return array

    monkeypatch.setattr(mg.Device, "asarray", asarray)
    leaf.to("cpu")
    assert sorted(moved) == ["f", "f", "i"]


def test_zero_grad() -> None:
    leaf = Leaf(2.0)
    leaf(mg.ones(1)).sum().backward()
    assert leaf.scale.grad is not None
    leaf.zero_grad()
    assert leaf.scale.grad is None


def test_a_frozen_parameter_gets_no_gradient() -> None:
    layer = nn.Linear(2, 2, rng=mg.Generator(0))
    layer.weight.requires_grad = False
    layer(mg.ones((1, 2))).sum().backward()
    assert layer.weight.grad is None and layer.bias is not None and layer.bias.grad is not None
    assert not Parameter([1.0], requires_grad=False).requires_grad


def test_deepcopy_is_independent_and_keeps_sharing() -> None:
    tree = Tree()
    twin = copy.deepcopy(tree)
    assert isinstance(twin.first, Parameter) and twin.tied is twin.child.scale
    assert twin.first is not tree.first
    twin.first.assign(np.ones((2, 3)))
    assert (tree.first.numpy() == 0).all()


# Printing


def test_repr_shows_the_tree() -> None:
    rng = mg.Generator(0)
    model = nn.Sequential(
        nn.Linear(2, 8, rng=rng),
        nn.GELU("tanh"),
        nn.Sequential(nn.LayerNorm(8), nn.Dropout(0.1, rng=rng)),
        nn.Linear(8, 1, bias=False, rng=rng),
    )
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(2 -> 8)\n"
        "  (1): GELU(approximate='tanh')\n"
        "  (2): Sequential(\n"
        "    (0): LayerNorm(8, eps=1e-05)\n"
        "    (1): Dropout(p=0.1)\n"
        "  )\n"
        "  (3): Linear(8 -> 1, no bias)\n"
        ")"
    )
    assert repr(nn.Embedding(5, 3, rng=rng)) == "Embedding(5 x 3)"
    assert repr(nn.RMSNorm(3, eps=1e-6)) == "RMSNorm(3, eps=1e-06)"
    assert repr(nn.ReLU()) == "ReLU()"


def test_a_module_without_forward() -> None:
    with pytest.raises(TypeError, match="Tree has no forward method"):
        Tree()(mg.ones(1))


def test_a_part_of_a_state_is_loaded_if_that_is_asked_for(rng: Any) -> None:
    model = nn.Linear(2, 2, rng=mg.Generator(0))
    before = model.bias.numpy().copy()
    state = {"weight": np.eye(2), "extra": np.ones(3)}
    with pytest.raises(ValueError, match=r"missing: bias(.|\n)*unexpected: extra"):
        model.load_state_dict(state)
    keys = model.load_state_dict(state, strict=False)
    assert keys.missing_keys == ["bias"] and keys.unexpected_keys == ["extra"]
    assert model.weight.tolist() == [[1, 0], [0, 1]] and (model.bias.numpy() == before).all()
    with pytest.raises(ValueError, match="wrong shape: weight"):
        model.load_state_dict({"weight": np.ones(2)}, strict=False)
    assert model.load_state_dict(model.state_dict()) == ([], [])


def test_gradients_are_forgotten_or_filled_with_zeros() -> None:
    model = nn.Linear(2, 2, rng=mg.Generator(0))
    for owner in (model, mg.optim.SGD(model.parameters(), lr=0.1)):
        model(np.ones((1, 2), np.float32)).sum().backward()
        gradient = model.weight.grad
        owner.zero_grad(set_to_none=False)
        assert model.weight.grad is gradient and (gradient.numpy() == 0).all()
        owner.zero_grad(set_to_none=True)
        assert model.weight.grad is None
        owner.zero_grad(set_to_none=False)
        assert model.weight.grad is None


def test_what_a_list_hides_is_found_beside_a_module_with_two_names() -> None:
    root = nn.Module()
    root.first = nn.Module()
    root.first.layers = [nn.Linear(2, 2, rng=mg.Generator(0))]
    root.second = root.third = nn.GELU()
    with pytest.raises(TypeError, match=r"Module\.layers is a plain list that holds a Linear"):
        root.parameters()


def test_a_place_that_was_emptied_stays_a_place_of_its_kind() -> None:
    layer = nn.Linear(3, 2, rng=mg.Generator(0))
    layer.bias = None
    layer.note = None
    with pytest.raises(TypeError, match=r"Linear\.bias is a parameter, which a Tensor cannot"):
        layer.bias = mg.ones(2)
    layer.note = mg.ones(2)
    layer.bias = Parameter(mg.ones(2))
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    tree = Tree()
    tree.child = None
    with pytest.raises(TypeError, match="child is a module, which a function cannot replace"):
        tree.child = mg.relu


def test_a_module_below_itself_is_an_error() -> None:
    child = nn.Linear(3, 2, rng=mg.Generator(0))
    model = nn.Sequential(child)
    child.parent = model
    for use in (model.parameters, model.state_dict, model.train, child.parameters):
        with pytest.raises(ValueError, match=r"parent.* above it.*weakref"):
            use()
    assert "(parent): ..." in repr(model)
    del child.parent
    child.parent = weakref.ref(model)
    assert len(model.parameters()) == 2


@pytest.mark.parametrize("container", [deque, UserList, lambda parts: MappingProxyType({1: parts})])
def test_other_containers_hide_nothing(container: Any) -> None:
    model = Leaf(1.0)
    model.more = container([Leaf(2.0)])
    with pytest.raises(TypeError, match="that holds a Leaf"):
        model.parameters()


def test_arrays_of_a_state_can_be_taken_as_they_are(rng):
    model = nn.Sequential(
        nn.Linear(3, 3, rng=mg.Generator(0)), nn.Linear(3, 3, rng=mg.Generator(1))
    )
    weight, bias = rng.standard_normal((3, 3)).astype("f4"), np.zeros(3)
    fixed = np.ones(3, "f4")
    fixed.flags.writeable = False
    model.load_state_dict(
        {"0.weight": weight.T, "0.bias": bias, "1.weight": weight.T, "1.bias": fixed}, assign=True
    )
    assert np.shares_memory(model[0].weight.array, weight)
    assert not np.shares_memory(model[1].weight.array, weight)  # changes must not affect both
    np.testing.assert_array_equal(model[1].weight.array, weight.T)
    assert model[0].bias.dtype == "f4" and model[0].bias.array.tolist() == [0, 0, 0]
    model[1].bias.assign(np.zeros(3))
    assert fixed.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"missing: 0.bias"):
        model.load_state_dict({"0.weight": weight}, assign=True)
