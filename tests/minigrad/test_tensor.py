"""Tensor: how it is made and printed, and how its values are read."""

import copy
import operator
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import InPlaceError, Tensor, nn


def test_dtypes_of_what_it_is_made_from() -> None:
    assert Tensor(1.5).dtype == Tensor([1.0, 2]).dtype == Tensor([[0.5]]).dtype == np.float32
    assert Tensor(3).dtype == Tensor([1, 2]).dtype == np.int64
    assert Tensor(True).dtype == Tensor([True, False]).dtype == np.bool_
    assert Tensor(np.float64(1)).dtype == Tensor(np.ones(2)).dtype == np.float64
    assert Tensor([1, 2], dtype="float64").dtype == np.float64
    assert Tensor(np.ones(2), np.float32).dtype == np.float32
    assert Tensor(np.ones(2, np.int8)).dtype == np.int8
    assert Tensor([]).shape == (0,)


def test_an_array_is_not_copied() -> None:
    array = np.zeros(3)
    x = Tensor(array)
    array[0] = 5
    assert x.tolist() == [5, 0, 0] and x.numpy() is array and x.data is array
    assert Tensor(x).data is array


@pytest.mark.parametrize("data", ["text", None, [1, "a"], object(), [1j]])
def test_what_holds_no_numbers_is_refused(data: Any) -> None:
    with pytest.raises(TypeError, match="a tensor holds numbers or booleans, not"):
        Tensor(data)
    with pytest.raises(TypeError, match="a tensor holds numbers or booleans, not"):
        Tensor(np.asarray(data))


def test_only_floats_require_a_gradient() -> None:
    with pytest.raises(TypeError, match=r"dtype int64 cannot require a gradient.*astype"):
        Tensor([1, 2], requires_grad=True)


def test_a_list_of_tensors_that_require_gradients_is_stacked_not_copied() -> None:
    """Copying the numbers would lose the gradients silently."""
    x = Tensor(2.0, requires_grad=True)
    with pytest.raises(TypeError, match=r"minigrad\.stack"):
        Tensor([x, x])
    assert mg.stack([x, x]).tolist() == [2, 2]
    assert Tensor([Tensor(1.0), Tensor(2.0)]).tolist() == [1, 2]


def test_properties() -> None:
    x = mg.ones((2, 3), requires_grad=True)
    assert (x.shape, x.ndim, x.size, len(x)) == ((2, 3), 2, 6, 2)
    assert str(x.device) == "cpu" and x.is_leaf and not (x + 1).is_leaf
    assert x.T.shape == (3, 2)


def test_repr() -> None:
    assert repr(Tensor([1.0, 2.5])) == "Tensor([1. , 2.5], dtype=float32)"
    assert repr(Tensor(3)) == "Tensor(3, dtype=int64)"
    assert repr(Tensor([True])) == "Tensor([ True], dtype=bool)"
    x = Tensor([1.0], requires_grad=True)
    assert repr(x) == "Tensor([1.], dtype=float32, requires_grad=True)"
    assert repr(x * 2) == "Tensor([2.], dtype=float32, made by 'multiply')"
    assert repr(mg.zeros((0, 3))) == "Tensor([], shape=(0, 3), dtype=float32)"
    assert "shape=(100, 100)" in repr(mg.zeros((100, 100))) and "..." in repr(mg.zeros((100, 100)))
    assert repr(Tensor([[1, 2], [3, 4]])) == "Tensor([[1, 2],\n        [3, 4]], dtype=int64)"


def test_single_elements_become_python_numbers() -> None:
    assert Tensor([[2.5]]).item() == 2.5 and type(Tensor(2.5).item()) is float
    assert type(Tensor(3).item()) is int and type(Tensor(True).item()) is bool
    assert float(Tensor([1.5])) == 1.5 and int(Tensor(2.9)) == 2
    assert bool(Tensor(0.0)) is False and bool(Tensor([[7]])) is True
    assert [10, 20, 30][Tensor(1)] == 20 and operator.index(Tensor([2])) == 2


def test_more_than_one_element_is_an_error() -> None:
    x = mg.ones(3)
    with pytest.raises(ValueError, match=r"item\(\) needs a single element, the shape is \(3,\)"):
        x.item()
    with pytest.raises(ValueError, match=r"truth of a tensor of shape \(3,\) is ambiguous"):
        bool(x)
    with pytest.raises(ValueError, match="item"):
        float(x)
    with pytest.raises(TypeError, match="dtype float32 cannot be an index"):
        range(5)[Tensor(1.0)]


def test_length_and_iteration() -> None:
    x = Tensor(np.arange(6).reshape(3, 2))
    assert [row.tolist() for row in x] == [[0, 1], [2, 3], [4, 5]]
    first, *rest = x
    assert first.tolist() == [0, 1] and len(rest) == 2
    assert list(mg.zeros((0, 2))) == []
    for use in (len, iter, list):
        with pytest.raises(TypeError, match="a tensor without axes"):
            use(Tensor(1.0))


def test_iteration_is_differentiable() -> None:
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    total = sum((i * element for i, element in enumerate(x)), start=Tensor(0.0))
    assert mg.grad(total, x).tolist() == [0, 1, 2]


def test_a_tensor_is_an_array() -> None:
    x = Tensor(np.arange(3.0))
    assert np.asarray(x) is x.data
    assert np.array_equal(np.sin(np.asarray(x)), np.sin(x.data))
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    copied = np.array(x)
    copied[0] = 9
    assert x.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="copy"):
        np.asarray(x, dtype=np.float32, copy=False)


def test_comparison_with_what_is_no_number() -> None:
    x = Tensor([1.0])
    assert (x == None) is False and (x != None) is True  # noqa: E711
    assert x not in [None, "text"]
    with pytest.raises(TypeError):
        x < "text"  # noqa: B015


def test_tensors_are_keys_by_identity() -> None:
    x, y = Tensor([1.0]), Tensor([1.0])
    assert {x: "x", y: "y"}[y] == "y" and len({x, y, x}) == 2


# In-place changes


def test_items_of_a_plain_tensor_can_be_assigned() -> None:
    x = mg.zeros((2, 3))
    x[0] = 1
    x[1, [0, 2]] = Tensor([5.0, 6.0])
    x[x == 0] = np.array([-1])
    assert x.tolist() == [[1, 1, 1], [5, -1, 6]]


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x * 2])
def test_items_of_a_tensor_in_a_graph_cannot(make: Any) -> None:
    x = make(mg.ones(3, requires_grad=True))
    with pytest.raises(InPlaceError, match=r"minigrad\.where.*minigrad\.concatenate"):
        x[0] = 5
    assert x.tolist() == (make(mg.ones(3))).tolist()


def test_assigned_values_do_not_lose_a_graph_silently() -> None:
    x, y = mg.zeros(3), mg.ones(3, requires_grad=True)
    with pytest.raises(InPlaceError, match=r"minigrad\.where.*minigrad\.concatenate"):
        x[0] = (y * 2)[1]
    x[0] = y.detach()[1]
    assert x.tolist() == [1, 0, 0]


def test_assign() -> None:
    x = mg.zeros((2, 2), requires_grad=True)
    memory = x.data
    x.assign([[1, 2], [3, 4]])
    assert x.data is memory and x.tolist() == [[1, 2], [3, 4]]
    x.assign(Tensor(np.full((2, 2), 7.0)))
    assert x.dtype == np.float32 and x.tolist() == [[7, 7], [7, 7]]
    with pytest.raises(ValueError, match=r"assign.*\(3,\).*\(2, 2\)"):
        x.assign([1, 2, 3])
    with pytest.raises(InPlaceError, match="result of an op"):
        (x + 1).assign(x)


def test_augmented_assignment_makes_a_new_tensor() -> None:
    x = y = mg.ones(2, requires_grad=True)
    y = y + 0
    y += 1
    y *= 3
    assert x.tolist() == [1, 1] and y.tolist() == [6, 6]
    assert mg.grad(y.sum(), x).tolist() == [3, 3]


def test_detach_shares_memory_but_no_graph() -> None:
    x = mg.ones(2, requires_grad=True)
    y = (x * 2).detach()
    assert not y.requires_grad and y.is_leaf
    assert np.shares_memory(x.detach().data, x.data)


# DLPack


def test_dlpack_to_numpy_shares_memory() -> None:
    x = mg.zeros(3)
    array = np.from_dlpack(x)
    x[1] = 5
    assert array.tolist() == [0, 5, 0]


def test_dlpack_with_torch_shares_memory_both_ways() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    theirs = torch.zeros(2, 3)
    ours = mg.from_dlpack(theirs)
    theirs[0, 1] = 5
    assert ours.tolist() == [[0, 5, 0], [0, 0, 0]]
    ours[1, 0] = 7
    assert theirs[1, 0] == 7
    back = torch.from_dlpack(ours)
    back[1, 1] = 9
    assert ours.tolist()[1] == [7, 9, 0] and theirs[1, 1] == 9
    ints = mg.from_dlpack(torch.arange(3))
    assert ints.dtype == np.int64


def test_dlpack_carries_no_graph() -> None:
    x = mg.ones(2, requires_grad=True)
    for tensor in (x, x * 2):
        with pytest.raises(BufferError, match=r"\.detach\(\)"):
            np.from_dlpack(tensor)
    assert np.from_dlpack(x.detach()).tolist() == [1, 1]


# Copies


def test_deepcopy_of_a_tensor_and_of_a_module() -> None:
    x = mg.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    y = copy.deepcopy(x)
    assert y.requires_grad and y.grad is not None and y.grad.tolist() == [3, 3]
    y.assign([5, 5])
    y.grad.data += 1
    assert x.tolist() == [1, 1] and x.grad is not None and x.grad.tolist() == [3, 3]
    rng = mg.Generator(0)
    model = nn.Sequential(nn.Linear(2, 3, rng=rng), nn.Dropout(0.5, rng=rng), nn.LayerNorm(3))
    twin = copy.deepcopy(model)
    assert np.array_equal(model(mg.ones((4, 2))).numpy(), twin(mg.ones((4, 2))).numpy())
    twin.parameters()[0].assign(mg.zeros((3, 2)))
    assert model.parameters()[0].numpy().any()


def test_deepcopy_of_a_result_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"cannot be copied with its graph: use \.detach\(\)"):
        copy.deepcopy(mg.ones(2, requires_grad=True) * 2)


def test_methods_are_the_functions_of_the_same_name(rng: np.random.Generator) -> None:
    x = Tensor(rng.uniform(0.5, 2, (2, 3)))
    for name in ("sum", "mean", "var", "max", "min", "exp", "log", "sqrt", "tanh", "abs"):
        assert np.array_equal(getattr(x, name)().numpy(), getattr(mg, name)(x).numpy())
    assert np.array_equal(x.clip(0.6, 1).numpy(), mg.clip(x, 0.6, 1).numpy())
    assert np.array_equal(x.broadcast_to((4, 2, 3)).numpy(), mg.broadcast_to(x, (4, 2, 3)).numpy())
