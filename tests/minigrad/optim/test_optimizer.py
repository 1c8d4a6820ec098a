"""The base class of optimizers, flat parameters and clipping."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import NonFiniteError, Tensor, nn
from minigrad.optim import SGD, AdamW, FlatParameters, Optimizer, clip_grad_norm_
from tests.minigrad.optim.problem import SHAPES, parameters, set_gradients


def test_parameters_without_gradient_are_left_alone() -> None:
    params = parameters()
    before = [p.numpy().copy() for p in params]
    set_gradients(params, 0)
    params[1].grad = None
    SGD(params, lr=0.1).step()
    moved = [not np.array_equal(p.numpy(), b) for p, b in zip(params, before, strict=True)]
    assert moved == [True, False, True, True]


def test_zero_grad() -> None:
    params = parameters()
    set_gradients(params, 0)
    SGD(params).zero_grad()
    assert all(p.grad is None for p in params)


def test_gradients_are_only_read() -> None:
    params = parameters()
    set_gradients(params, 0)
    before = [p.grad.numpy().copy() for p in params if p.grad is not None]
    for optimizer in (AdamW(params), SGD(params, momentum=0.9, weight_decay=0.1, nesterov=True)):
        optimizer.step()
        for p, b in zip(params, before, strict=True):
            assert p.grad is not None and np.array_equal(p.grad.numpy(), b)


def test_steps_are_in_place() -> None:
    params = parameters()
    memory = [p.data for p in params]
    set_gradients(params, 0)
    AdamW(params).step()
    SGD(params).step()
    assert all(p.data is m for p, m in zip(params, memory, strict=True))


def test_params_may_be_an_iterator() -> None:
    assert len(SGD(iter(parameters())).parameters()) == len(SHAPES)
    groups = [{"params": iter(parameters())}, {"params": (p for p in parameters())}]
    assert len(AdamW(groups).parameters()) == 2 * len(SHAPES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: SGD([]), "the optimizer was given no parameters"),
        (lambda p: SGD([p[0], p[0]]), "a parameter is given to the optimizer twice"),
        (lambda p: SGD([{"params": p}, {"params": p[:1]}]), "given to the optimizer twice"),
        (lambda p: SGD([{"params": p, "momentun": 1}]), r"unknown setting 'momentun'.*'momentum'"),
        (lambda p: SGD([{"lr": 0.1}]), "a group has no 'params'"),
        (lambda p: SGD([p[0] * 2]), "results of ops"),
        (lambda p: SGD([p[0].numpy()]), "not ndarray"),
    ],
)
def test_bad_parameters(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make(parameters())


def test_a_base_class_updates_nothing() -> None:
    params = parameters()
    set_gradients(params, 0)
    with pytest.raises(TypeError, match="Optimizer has no rule"):
        Optimizer(params, {}).step()


# Flat parameters


def test_flat_parameters_keep_values_and_share_memory() -> None:
    params, plain = parameters(), parameters()
    flat = FlatParameters(params)
    assert flat.data.shape == (sum(p.size for p in params),)
    assert np.array_equal(flat.data, np.concatenate([p.numpy().reshape(-1) for p in plain]))
    for p, q in zip(params, plain, strict=True):
        assert np.array_equal(p.numpy(), q.numpy()) and np.shares_memory(p.data, flat.data)
        assert p.shape == q.shape
    flat.data[0] = 42
    assert params[0].data.flat[0] == 42


def test_backward_adds_into_the_flat_gradient() -> None:
    params = parameters()
    flat = FlatParameters(params)
    flat.zero_grad()
    for _ in range(2):
        sum(((p * p).sum() for p in params), Tensor(0.0)).backward()
    assert np.allclose(flat.grad, 4 * flat.data, rtol=1e-14)
    assert all(p.grad is not None and np.shares_memory(p.grad.data, flat.grad) for p in params)
    flat.zero_grad()
    assert (flat.grad == 0).all()


def test_flat_parameters_in_given_memory() -> None:
    params = parameters()
    size = sum(p.size for p in params)
    data, gradient = np.zeros(size), np.zeros(size)
    flat = FlatParameters(params, data, gradient)
    assert flat.data is data and flat.grad is gradient and data.any()
    with pytest.raises(ValueError, match=f"must have {size} elements"):
        FlatParameters(params, np.zeros(3))
    with pytest.raises(ValueError, match=r"must be float64.*float32"):
        FlatParameters(params, np.zeros(size, np.float32))
    with pytest.raises(ValueError, match="no parameters"):
        FlatParameters([])
    mixed = [nn.Parameter([1.0]), nn.Parameter(np.ones(1))]
    with pytest.raises(ValueError, match="one dtype"):
        FlatParameters(mixed)


# Clipping


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e9, float("inf")])
@pytest.mark.parametrize("flat", [False, True])
def test_clipping_is_torchs(max_norm: float, flat: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there")
    params = parameters()
    if flat:
        FlatParameters(params).zero_grad()
    set_gradients(params, 0)
    others = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
    for p, q in zip(params, others, strict=True):
        assert p.grad is not None
        q.grad = torch.tensor(p.grad.numpy())
    norm = clip_grad_norm_(params, max_norm)
    other_norm = torch.nn.utils.clip_grad_norm_(others, max_norm).item()
    assert isinstance(norm, float) and abs(norm / other_norm - 1) < 1e-13
    for p, q in zip(params, others, strict=True):
        assert p.grad is not None
        assert np.allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-13, atol=0)


def test_clipping_of_one_none_or_no_gradient() -> None:
    x = nn.Parameter([3.0, 4.0])
    assert clip_grad_norm_([x], 1.0) == 0.0
    x.grad = Tensor([3.0, 4.0])
    assert clip_grad_norm_(x, 10.0) == 5.0 and x.grad.tolist() == [3, 4]
    assert clip_grad_norm_(iter([x]), 2.5) == 5.0
    assert np.allclose(x.grad.numpy(), [1.5, 2.0], rtol=1e-6)


def test_a_norm_that_is_not_finite() -> None:
    x = nn.Parameter([3.0, 4.0])
    x.grad = Tensor([np.inf, 1.0])
    with pytest.raises(NonFiniteError, match=r"norm of the gradients is inf.*detect_nan"):
        clip_grad_norm_([x], 1.0, error_if_nonfinite=True)
    assert x.grad.tolist() == [np.inf, 1]
    x.grad = Tensor([np.nan, 1.0])
    assert np.isnan(clip_grad_norm_([x], 1.0))
    with pytest.raises(NonFiniteError, match="is nan"):
        clip_grad_norm_([x], 1.0, error_if_nonfinite=True)


def test_a_step_in_float32_stays_in_float32() -> None:
    layer = nn.Linear(3, 2, rng=mg.Generator(0))
    optimizer = AdamW(layer.parameters())
    layer(mg.ones((1, 3))).sum().backward()
    clip_grad_norm_(layer.parameters(), 1e-3)
    optimizer.step()
    assert all(p.dtype == np.float32 for p in layer.parameters())
    assert all(e["exp_avg"].dtype == np.float32 for e in optimizer.state.values())


@pytest.mark.parametrize("flat", [False, True])
def test_a_norm_that_is_nan_makes_all_gradients_nan(flat: bool) -> None:
    params = [Tensor(np.ones(2, np.float32), requires_grad=True) for _ in range(2)]
    if flat:
        FlatParameters(params).attach_grad()
    for p, g in zip(params, ([1.0, 2.0], [np.nan, 3.0]), strict=True):
        p.grad = Tensor([0.0, 0.0]) if p.grad is None else p.grad
        p.grad.data[...] = g
    measured = clip_grad_norm_(params, float("inf"))
    assert np.isnan(measured) and params[0].grad.tolist() == [1, 2], "infinity only measures"
    assert np.isnan(clip_grad_norm_(params, 1.0))
    assert all(np.isnan(p.grad.numpy()).all() for p in params)


@pytest.mark.parametrize("kind", [SGD, AdamW])
@pytest.mark.parametrize("shape", [(), (3,), (6,), (1, 3)])
def test_a_gradient_of_another_shape_is_refused(kind: type[Optimizer], shape: Any) -> None:
    parameter = nn.Parameter(np.ones((2, 3), np.float32))
    parameter.grad = mg.ones(shape)
    with pytest.raises(mg.ShapeError, match=r"\.grad has shape"):
        kind([parameter], lr=0.1).step()
    with pytest.raises(mg.ShapeError, match=r"\.grad has shape"):
        (parameter * 2).sum().backward()
    np.testing.assert_array_equal(parameter.numpy(), 1)


def test_a_gradient_that_is_no_tensor_is_refused() -> None:
    parameter = nn.Parameter([1.0, 2.0])
    parameter.grad = np.ones(2)  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"not a ndarray: assign\s+Tensor"):
        SGD([parameter], lr=0.1).step()
    with pytest.raises(TypeError, match="not a ndarray"):
        (parameter * 2).sum().backward()
