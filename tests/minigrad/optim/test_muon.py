"""Muon: orthogonal steps for matrices, AdamW steps for other parameters."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from minigrad.ops.updates.muon import orthogonalized
from minigrad.optim import AdamW, Muon


def leaf(array):
    parameter = Tensor(np.array(array, np.float64), requires_grad=True)
    return parameter


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 16, 5), (2, 5, 16), (1, 1, 4)])
def test_singular_values_come_near_one_and_directions_stay(rng, shape):
    matrices = rng.standard_normal(shape)
    result = orthogonalized(np, matrices)
    assert result.shape == shape
    for before, after in zip(matrices, result, strict=True):
        u, s, vt = np.linalg.svd(before, full_matrices=False)
        values = np.diag(u.T @ after @ vt.T)
        inner = u.T @ after @ vt.T - np.diag(values)
        assert np.abs(inner).max() < 1e-9  # the same singular vectors
        large = s > 0.05 * np.linalg.norm(before)
        assert (values[large] > 0.6).all() and (values < 1.3).all()


def test_it_runs_on_tensors_of_minigrad_too(rng):
    matrices = rng.standard_normal((2, 4, 6))
    expected = orthogonalized(np, matrices)
    assert np.allclose(orthogonalized(mg, Tensor(matrices)).numpy(), expected, rtol=1e-12)


def test_a_step_is_the_formula(rng):
    start, gradients = rng.standard_normal((6, 4)), rng.standard_normal((3, 6, 4))
    parameter = leaf(start)
    optimizer = Muon([parameter], lr=0.1, weight_decay=0.01, momentum=0.9, orthogonal=True)
    w, b = start.copy(), np.zeros_like(start)
    for g in gradients:
        parameter.grad = Tensor(g)
        optimizer.step()
        b = 0.9 * b + 0.1 * g
        step = orthogonalized(np, (0.9 * b + 0.1 * g)[None])[0]
        w = w * (1 - 0.1 * 0.01) - 0.1 * 0.2 * np.sqrt(6) * step
        np.testing.assert_allclose(parameter.numpy(), w, rtol=1e-12)


def test_packed_matrices_are_made_orthogonal_one_by_one(rng):
    start, gradient = rng.standard_normal((9, 3)), rng.standard_normal((9, 3))
    packed = leaf(start)
    packed.grad = Tensor(gradient)
    Muon([packed], lr=0.1, weight_decay=0.0, orthogonal=True, parts=3).step()
    for rows in (slice(0, 3), slice(3, 6), slice(6, 9)):
        alone = leaf(start[rows])
        alone.grad = Tensor(gradient[rows])
        Muon([alone], lr=0.1, weight_decay=0.0, orthogonal=True).step()
        np.testing.assert_allclose(packed.numpy()[rows], alone.numpy(), rtol=1e-12)


def test_equal_shapes_go_together_with_the_same_result(rng):
    starts, gradients = rng.standard_normal((2, 3, 4, 4))
    together = [leaf(s) for s in starts]
    for parameter, gradient in zip(together, gradients, strict=True):
        parameter.grad = Tensor(gradient)
    Muon(together, lr=0.1, orthogonal=True).step()
    for start, gradient, moved in zip(starts, gradients, together, strict=True):
        alone = leaf(start)
        alone.grad = Tensor(gradient)
        Muon([alone], lr=0.1, orthogonal=True).step()
        np.testing.assert_allclose(moved.numpy(), alone.numpy(), rtol=1e-12)


def test_other_groups_are_adamw_exactly(rng):
    start, gradient = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    ours, theirs, matrix = leaf(start), leaf(start), leaf(start)
    groups = [{"params": [matrix], "orthogonal": True}, {"params": [ours]}]
    mixed = Muon(groups, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    alone = AdamW([theirs], lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    for _ in range(3):
        for parameter in (ours, theirs, matrix):
            parameter.grad = Tensor(gradient)
        mixed.step()
        alone.step()
    assert np.array_equal(ours.numpy(), theirs.numpy())
    assert not np.array_equal(matrix.numpy(), theirs.numpy())


def test_state_goes_to_a_dictionary_and_back(rng):
    start, gradient = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))

    def make():
        parameters = [leaf(start), leaf(start[0])]
        groups = [{"params": parameters[:1], "orthogonal": True}, {"params": parameters[1:]}]
        return parameters, Muon(groups, lr=0.02)

    def step(parameters, optimizer):
        parameters[0].grad, parameters[1].grad = Tensor(gradient), Tensor(gradient[0])
        optimizer.step()

    first, optimizer = make()
    step(first, optimizer)
    second, restored = make()
    for source, target in zip(first, second, strict=True):
        target.assign(source.numpy())
    restored.load_state_dict(optimizer.state_dict())
    step(first, optimizer)
    step(second, restored)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_steps_are_counted_and_parts_are_of_rows(rng):
    parameters = [leaf(rng.standard_normal((6, 4))), leaf(rng.standard_normal(3))]
    groups = [
        {"params": parameters[:1], "orthogonal": True, "parts": 3},
        {"params": parameters[1:]},
    ]
    optimizer = Muon(groups, lr=0.1)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = Tensor(np.ones(parameter.shape))
        optimizer.step()
    assert [entry["step"] for entry in optimizer.state_dict()["state"].values()] == [2, 2]
    Muon([leaf(np.zeros((4, 4)))], momentum=0.0, orthogonal=True)  # the smallest that is allowed
    with pytest.raises(ValueError, match=r"shape \(4, 6\) is no matrix of 3 equal"):
        Muon([leaf(np.zeros((4, 6)))], orthogonal=True, parts=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "momentum must be in"),
        ({"orthogonal": True, "parts": 3}, "no matrix of 3 equal"),
        ({"lr": -1.0}, "lr must not be negative"),
        ({"betas": (0.9, 1.0)}, "betas must be in"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Muon([leaf(np.zeros((4, 4)))], **settings)
    with pytest.raises(ValueError, match="no matrix"):
        Muon([leaf(np.zeros(4))], orthogonal=True)


def test_it_learns_where_adamw_does(rng):
    target = rng.standard_normal((6, 6))
    parameter = leaf(np.zeros((6, 6)))
    optimizer = Muon([parameter], lr=0.05, weight_decay=0.0, orthogonal=True)
    losses = []
    for _ in range(200):
        loss = ((parameter - target) ** 2).sum()
        parameter.grad = None
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_clipped_step_is_the_step_of_clipped_gradients_bit_for_bit(rng, dtype):
    steps = []
    for scaled_before in (False, True):
        draws = np.random.default_rng(5)
        weights = [Tensor(draws.standard_normal(s).astype(dtype), requires_grad=True)
                   for s in ((6, 4), (6, 4), (70,))]  # fmt: skip
        optimizer = Muon(
            [{"params": weights[:2], "orthogonal": True, "parts": 2}, {"params": weights[2:]}]
        )
        for _ in range(3):
            for w in weights:
                gradient = Tensor(draws.standard_normal(w.shape).astype(dtype))
                w.grad = gradient * 0.3 if scaled_before else gradient
            optimizer.step(1.0 if scaled_before else 0.3)
        steps.append([w.numpy() for w in weights])
    for ours, expected in zip(*steps, strict=True):
        np.testing.assert_array_equal(ours, expected)
