"""Parameters, gradients and averages whose memory is exchanged between two steps.

What lies side by side is updated as one array. That is found out once and remembered, so a step
must notice when it is given other arrays, even where their number and shapes are the same.
"""

from collections.abc import Callable

import numpy as np
import pytest

from minigrad import Tensor
from minigrad.nn import Parameter
from minigrad.optim import AdamW, FlatParameters
from minigrad.optim.flat import MergedOnce
from tests.minigrad.optim.problem import gradients, parameters, set_gradients


def test_merged_once_looks_again_when_it_is_given_other_arrays() -> None:
    first, second = np.arange(6.0), np.arange(6.0)
    merge = MergedOnce()
    whole = merge([first[:2], first[2:]])
    assert whole is not None
    assert np.shares_memory(whole, first)
    whole = merge([second[:2], second[2:]])
    assert whole is not None
    assert np.shares_memory(whole, second)
    assert not np.shares_memory(whole, first)
    assert merge([first[:2], second[2:]]) is None
    assert merge([first[:2]]) is not None, "fewer than before"
    part = [second[:2], second[2:]]
    assert merge(part) is not None
    found = merge._part
    assert merge(part) is not None and merge._part is found, "the same arrays need no second look"


def flattened_again(params: list[Parameter]) -> None:
    FlatParameters(params).zero_grad()


def flattened_in_another_order(params: list[Parameter]) -> None:
    FlatParameters(params[::-1]).zero_grad()


def with_arrays_of_their_own(params: list[Parameter]) -> None:
    for p in params:
        p.data = p.data.copy()
        p.grad = None


def with_new_gradients(params: list[Parameter]) -> None:
    for p in params:
        p.grad = Tensor(np.zeros_like(p.data))


def one_of_them_with_an_array_of_its_own(params: list[Parameter]) -> None:
    params[1].data = params[1].data.copy()


@pytest.mark.parametrize(
    "change",
    [
        flattened_again,
        flattened_in_another_order,
        with_arrays_of_their_own,
        with_new_gradients,
        one_of_them_with_an_array_of_its_own,
    ],
)
def test_a_step_after_memory_was_exchanged(change: Callable[[list[Parameter]], None]) -> None:
    """The same steps as an optimizer that has seen separate arrays from the start."""
    params, others = parameters(), parameters()
    FlatParameters(params).zero_grad()
    ours, plain = AdamW(params, lr=1e-2), AdamW(others, lr=1e-2)
    for step in range(4):
        if step == 2:
            change(params)
        set_gradients(params, step)
        for p, g in zip(others, gradients(step), strict=True):
            p.grad = Tensor(g)
        ours.step()
        plain.step()
        for p, other in zip(params, others, strict=True):
            np.testing.assert_allclose(p.data, other.data, rtol=1e-13, atol=1e-15)
